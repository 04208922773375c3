//! The functions in the symbol tables of ELF files.

use object::{Object, ObjectSymbol, ReadRef, SymbolKind};

struct Symbol {
    address: u64,
    /// 0 if unknown, as of functions in assembly.
    size: u64,
    /// Of several names for an address, the one with the lowest rank is used.
    rank: (bool, bool, usize),
    name: String,
}

/// By address, once they are sorted.
#[derive(Default)]
pub(crate) struct Symbols {
    functions: Vec<Symbol>,
}

impl Symbols {
    /// Adds the functions of both tables, static and dynamic.
    pub(crate) fn add<'a, R: ReadRef<'a>>(&mut self, elf: &object::File<'a, R>) {
        for symbol in elf.symbols().chain(elf.dynamic_symbols()) {
            let function = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown);
            let Ok(name) = symbol.name() else {
                continue;
            };
            // Names with a dollar are the assembler's notes, such as `$x` and `$d` of ARM.
            if !function || !symbol.is_definition() || name.is_empty() || name.starts_with('$') {
                continue;
            }
            // Unversioned: `malloc@@GLIBC_2.2.5` is `malloc`.
            let name = name.split('@').next().unwrap_or_default();
            self.functions.push(Symbol {
                address: symbol.address(),
                size: symbol.size(),
                rank: (!symbol.is_global(), symbol.size() == 0, name.len()),
                name: name.to_string(),
            });
        }
    }

    pub(crate) fn sort(&mut self) {
        self.functions
            .sort_by(|a, b| (a.address, a.rank, &a.name).cmp(&(b.address, b.rank, &b.name)));
        self.functions.dedup_by_key(|it| it.address);
    }

    /// The name of the function at an address. Not the one before it, if that ends earlier.
    pub(crate) fn find(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|it| it.address <= address);
        let found = self.functions.get(after.checked_sub(1)?)?;
        let ended = found.size != 0 && address - found.address >= found.size;
        (!ended).then_some(found.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols(all: &[(u64, u64, &str)]) -> Symbols {
        let mut symbols = Symbols::default();
        for &(address, size, name) in all {
            symbols.functions.push(Symbol {
                address,
                size,
                rank: (false, size == 0, name.len()),
                name: name.to_string(),
            });
        }
        symbols.sort();
        symbols
    }

    #[test]
    fn an_address_belongs_to_the_function_around_it() {
        let symbols = symbols(&[(30, 0, "c"), (10, 5, "a"), (20, 4, "b")]);
        for (address, expected) in [
            (9, None),
            (10, Some("a")),
            (14, Some("a")),
            (15, None),
            (23, Some("b")),
            (24, None),
            (1000, Some("c")),
        ] {
            assert_eq!(symbols.find(address), expected, "{address}");
        }
    }

    #[test]
    fn of_several_names_the_plainest_is_used() {
        let symbols = symbols(&[(10, 5, "__libc_malloc"), (10, 0, "m"), (10, 5, "malloc")]);
        assert_eq!(symbols.find(12), Some("malloc"));
    }
}
