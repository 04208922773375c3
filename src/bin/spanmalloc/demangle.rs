//! Names of functions as their programmers wrote them.

use cpp_demangle::{DemangleOptions, Symbol};

/// The name of a linker symbol: of Rust without hashes, of C++ without parameters. What is not
/// mangled stays as it is.
pub(crate) fn demangle(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    if name.starts_with("_Z") || name.starts_with("__Z") {
        let options = DemangleOptions::new().no_params().no_return_type();
        let cpp = Symbol::new(name).ok();
        if let Some(text) = cpp.and_then(|symbol| symbol.demangle(&options).ok()) {
            return text;
        }
    }
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn names_are_those_of_the_source() {
        for (mangled, expected) in [
            ("main", "main"),
            ("_ZN4core3fmt5write17h0123456789abcdefE", "core::fmt::write"),
            ("_RNvCs1234_7mycrate3foo", "mycrate::foo"),
            ("_Znwm", "operator new"),
            ("_Znam", "operator new[]"),
            ("_ZN3app5CacheIiE6insertERKi", "app::Cache<int>::insert"),
            ("_Z", "_Z"),
            ("", ""),
        ] {
            assert_eq!(demangle(mangled), expected, "{mangled}");
        }
    }
}
