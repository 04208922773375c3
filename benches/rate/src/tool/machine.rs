//! The machine that the tool runs on.

use std::env::consts::ARCH;
use std::fs;

/// Its processors, memory and kernel, as far as the kernel tells them.
pub fn text() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    described(
        &read("/proc/cpuinfo"),
        &read("/proc/meminfo"),
        &read("/proc/sys/kernel/osrelease"),
    )
}

fn described(cpus: &str, memory: &str, release: &str) -> String {
    // Not all architectures have a name of the model.
    let mut parts = vec![values(cpus, "model name").next().unwrap_or(ARCH).to_owned()];
    match values(cpus, "processor").count() {
        0 => {}
        1 => parts.push("1 CPU".to_owned()),
        count => parts.push(format!("{count} CPUs")),
    }
    let kib = values(memory, "MemTotal").next();
    let kib = kib.and_then(|text| text.strip_suffix(" kB")?.parse::<u32>().ok());
    if let Some(kib) = kib {
        let gib = f64::from(kib) / f64::from(1 << 20);
        parts.push(format!("{gib:.1} GiB of memory"));
    }
    if !release.trim().is_empty() {
        parts.push(format!("Linux {}", release.trim()));
    }
    parts.join(", ")
}

/// What stands behind a name and a colon, in all lines with this name.
fn values<'t>(text: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_line() {
        let cpu = |number| format!("processor\t: {number}\nmodel name\t: Abacus 9\nflags\t: x\n\n");
        let cpus = cpu(0) + &cpu(1);
        let memory = "MemTotal:       25165824 kB\nMemFree:  1 kB\n";
        let expected = "Abacus 9, 2 CPUs, 24.0 GiB of memory, Linux 6.1.0";
        assert_eq!(described(&cpus, memory, "6.1.0\n"), expected);
        assert_eq!(described(&cpu(0), "", ""), "Abacus 9, 1 CPU");
        assert_eq!(described("", "MemTotal: much", ""), ARCH);
    }
}
