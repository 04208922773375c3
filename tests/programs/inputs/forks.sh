# Many forks: subshells, command substitutions, pipelines, and jobs in the background.
set -euo pipefail

declare -A lengths
total=0
for i in {1..150}; do
    text=$(printf '%*s' "$i" '' | tr ' ' x)
    lengths[$i]=${#text}
    (
        declare -a own
        for j in {1..50}; do own[j]="$i-$j-${text:0:10}"; done
        echo "${own[*]: -1}"
    )
    total=$((total + $(echo "$i" | cat | cat)))
done
echo "$total ${#lengths[@]}"

for i in {1..20}; do
    (echo "$((i * i))" >"job-$i") &
done
wait
cat job-{1..20}

printf '%s\n' {1..20000} | sort -r | awk '{ s += $1 } END { print s }'
while read -r line; do
    array=(${line//,/ })
    echo "${#array[@]} ${array[-1]}"
done < <(for i in {1..200}; do seq -s, 1 "$i"; done)

text=''
for i in {1..5000}; do text+="word$i "; done
echo "${#text} ${text//word/} " | cksum
words=($text)
echo "${#words[@]}"
[[ $text =~ word([0-9]+)\ word2500 ]] && echo "${BASH_REMATCH[1]}"
bash -c 'for i in {1..30}; do bash -c "echo $i"; done'
