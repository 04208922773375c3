//! Runtimes with a memory manager of their own beside malloc: Node.js, Java; and Rust's compiler,
//! which brings an allocator under the names of C's.

use std::fmt::Write;

use crate::harness::{both, program};

#[test]
fn node() {
    let Some(path) = program("node") else {
        return;
    };
    both(|stage| {
        stage.write("threads.js", include_str!("inputs/threads.js"));
        stage.run(stage.command(&path).arg("threads.js"))
    });
}

#[test]
fn java() {
    let Some(path) = program("java") else {
        return;
    };
    both(|stage| {
        stage.write("Threads.java", include_str!("inputs/Threads.java"));
        let mut command = stage.command(&path);
        stage.run(command.args(["-Xmx256m", "-XX:-UsePerfData", "Threads.java"]))
    });
}

/// Modules for a crate, so that there is something to compile at the same time.
fn modules(count: usize) -> String {
    let mut text = String::new();
    for index in 0..count {
        write!(
            text,
            "pub mod part_{index} {{
                use std::collections::{{BTreeMap, HashMap}};
                #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
                pub struct Item {{ pub name: String, pub list: Vec<Option<u{bits}>> }}
                pub fn work(rounds: usize) -> usize {{
                    let mut table: BTreeMap<Item, HashMap<String, Item>> = BTreeMap::new();
                    for i in 0..rounds {{
                        let item = Item {{ name: format!(\"item {{}}\", i * {index} % 37),
                            list: vec![Some(i as u{bits}); i % 9] }};
                        table.entry(item.clone()).or_default().insert(i.to_string(), item);
                    }}
                    table.values().map(|map| map.len()).sum::<usize>()
                        + format!(\"{{:?}}\", table.keys().collect::<Vec<_>>()).len()
                }}
            }}\n",
            bits = [8, 16, 32, 64][index % 4],
        )
        .unwrap();
    }
    text
}

#[test]
fn cargo() {
    const MODULES: usize = 6;
    let Some(path) = program("cargo") else {
        return;
    };
    let mut main = String::from("mod parts;\nfn main() {\n");
    for index in 0..MODULES {
        writeln!(main, "println!(\"{{}}\", parts::part_{index}::work(3000));").unwrap();
    }
    main.push_str("}\n");
    both(|stage| {
        let manifest = "[package]\nname = \"made\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
                        [workspace]\n";
        stage.write("Cargo.toml", manifest);
        stage.write("src/main.rs", &main);
        stage.write("src/parts.rs", modules(MODULES));
        stage.run(stage.command(&path).args(["build", "--offline", "--quiet"]));
        stage.run(&mut stage.command(stage.folder.join("target/debug/made")))
    });
}
