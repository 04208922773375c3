//! The command `env`: prints the variable that preloads the library.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use crate::End;
use crate::args::EnvArgs;
use crate::failure::{Failure, reason};
use crate::library;

pub(crate) fn print_env(args: &EnvArgs) -> Result<End, Failure> {
    let library = library::find(args.lib.as_deref())?;
    let value = library::preload(&library, None);
    let mut line = match args.systemd {
        true => systemd_line(&value),
        false => shell_line(&value),
    };
    line.push(b'\n');
    let mut stdout = io::stdout();
    stdout
        .write_all(&line)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(format!("standard output: {}", reason(&error))))?;
    Ok(End::Code(0))
}

/// An assignment for a shell; quoted only if need be, so that `env $(...)` works for usual paths.
fn shell_line(value: &OsStr) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+,@%=:".contains(byte);
    let mut line = b"LD_PRELOAD=".to_vec();
    if value.as_bytes().iter().all(plain) {
        line.extend(value.as_bytes());
        return line;
    }
    line.push(b'\'');
    for &byte in value.as_bytes() {
        match byte {
            b'\'' => line.extend(b"'\\''"),
            _ => line.push(byte),
        }
    }
    line.push(b'\'');
    line
}

/// A line of a unit; `%`, quotes and backslashes mean something to systemd.
fn systemd_line(value: &OsStr) -> Vec<u8> {
    let mut text = Vec::new();
    for &byte in value.as_bytes() {
        match byte {
            b'%' => text.extend(b"%%"),
            b'\\' | b'"' => text.extend([b'\\', byte]),
            b'\n' => text.extend(b"\\n"),
            _ => text.push(byte),
        }
    }
    let special = |byte: &u8| byte.is_ascii_whitespace() || b"\\\"'".contains(byte);
    match value.as_bytes().iter().any(special) {
        true => [b"Environment=\"LD_PRELOAD=".as_slice(), &text, b"\""].concat(),
        false => [b"Environment=LD_PRELOAD=".as_slice(), &text].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(value: &str) -> String {
        String::from_utf8(shell_line(OsStr::new(value))).unwrap()
    }

    fn systemd(value: &str) -> String {
        String::from_utf8(systemd_line(OsStr::new(value))).unwrap()
    }

    #[test]
    fn usual_paths_are_not_quoted() {
        assert_eq!(shell("/a-b/c_1.so"), "LD_PRELOAD=/a-b/c_1.so");
        assert_eq!(systemd("/a-b/c_1.so"), "Environment=LD_PRELOAD=/a-b/c_1.so");
    }

    #[test]
    fn what_a_shell_would_read_is_quoted() {
        assert_eq!(shell("/$a.so"), "LD_PRELOAD='/$a.so'");
        assert_eq!(shell("/it's.so"), r"LD_PRELOAD='/it'\''s.so'");
    }

    #[test]
    fn what_systemd_would_read_is_escaped() {
        assert_eq!(systemd("/%p.so"), "Environment=LD_PRELOAD=/%%p.so");
        assert_eq!(
            systemd("/it's \"x\".so"),
            r#"Environment="LD_PRELOAD=/it's \"x\".so""#
        );
    }
}
