# Builds and drops data structures of an ordinary script: records, indexes, JSON text.
import collections, json, random

random.seed(1)
customers = [{"id": i, "name": f"customer {i}", "tags": [f"t{random.randrange(50)}" for _ in range(3)]} for i in range(300)]
orders = collections.defaultdict(list)
for number in range(2000):
    customer = random.choice(customers)
    orders[customer["id"]].append({"number": number, "lines": [(random.randrange(500), random.random()) for _ in range(random.randrange(1, 5))]})
text = json.dumps({str(k): v for k, v in orders.items()})
again = json.loads(text)
words = collections.Counter(word for customer in customers for word in customer["name"].split())
totals = sorted((sum(price for order in of for _, price in order["lines"]), k) for k, of in again.items())
del again
print(len(text), len(words), len(totals))
