//! The part of JSON Schema that `stats.schema.json` uses.

use serde_json::Value;

/// Words that the check knows: it must not pass over others.
const KNOWN: [&str; 10] = [
    "$schema",
    "title",
    "description",
    "type",
    "minimum",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "dependentRequired",
];

/// Where and how a value does not fit the schema.
pub fn fault(value: &Value, schema: &Value, place: &str) -> Option<String> {
    for word in schema.as_object().unwrap().keys() {
        assert!(KNOWN.contains(&word.as_str()), "{word} in the schema");
    }
    match schema["type"].as_str().unwrap() {
        "integer" => {
            let least = schema["minimum"].as_u64().unwrap();
            let fits = value.as_u64().is_some_and(|number| number >= least);
            (!fits).then(|| format!("{place} is {value}"))
        }
        "array" => {
            let Some(items) = value.as_array() else {
                return Some(format!("{place} is {value}"));
            };
            let each = items.iter().enumerate();
            each.map(|(number, item)| fault(item, &schema["items"], &format!("{place}[{number}]")))
                .find_map(|fault| fault)
        }
        "object" => fault_of_object(value, schema, place),
        other => panic!("type {other} in the schema"),
    }
}

fn fault_of_object(value: &Value, schema: &Value, place: &str) -> Option<String> {
    let Some(members) = value.as_object() else {
        return Some(format!("{place} is {value}"));
    };
    let has_all = |names: &Value| {
        let mut names = names.as_array().unwrap().iter();
        names
            .find(|name| !members.contains_key(name.as_str().unwrap()))
            .cloned()
    };
    if let Some(name) = has_all(&schema["required"]) {
        return Some(format!("{place} has no {name}"));
    }
    for (name, others) in schema["dependentRequired"]
        .as_object()
        .into_iter()
        .flatten()
    {
        if members.contains_key(name)
            && let Some(other) = has_all(others)
        {
            return Some(format!("{place} has {name} and no {other}"));
        }
    }
    assert_eq!(schema["additionalProperties"], false);
    members
        .iter()
        .find_map(|(name, member)| match schema["properties"].get(name) {
            Some(schema) => fault(member, schema, &format!("{place}.{name}")),
            None => Some(format!("{place} has {name}")),
        })
}
