//! How much memory the process may have: limits of its cgroup, and of its address space.
//!
//! 1. Version 2 of cgroups: `memory.max` and `memory.high` of the process's group and of all groups
//!    above it.
//! 2. Version 1: `memory.limit_in_bytes` of the same, in the hierarchy of the controller `memory`.
//! 3. `RLIMIT_AS` (`ulimit -v`): a process beyond it gets no memory either. What is reserved counts
//!    there too, and so do stacks and libraries; so half of it is what the heap may have.
//!
//! The least one holds. A file that is not there sets no limit: inside a container the process's path
//! may be one of the host, of which only the container's own group is to be seen, at the top.
//!
//! The system calls are made as such: the C library's functions are points where threads can be
//! cancelled, and may be replaced by ones that allocate. Files go through buffers on the stack.

#![allow(unsafe_code)]

use core::ffi::{CStr, c_int};

use super::linux::KeepErrno;

/// Bytes of the longest list of groups that is read: version 1 has a line for each of some 14
/// controllers, and paths under Kubernetes have about 200 bytes.
const LIST_BYTES: usize = 4096;
/// Bytes of the longest path of a file; for a group that is deeper, those above it are asked.
const PATH_BYTES: usize = 1024;
/// Bytes that a number takes, with its end of line.
const NUMBER_BYTES: usize = 32;

/// From here on a number in version 1 says that there is no limit: it is `i64::MAX`, rounded down to
/// pages of up to 64 KiB.
const NO_LIMIT: usize = (i64::MAX as usize) & !0xffff;

/// Parts of `RLIMIT_AS` of which one is for the heap.
const ADDRESS_SPACE_PARTS: usize = 2;

/// Bytes that the process may have, if anything limits that.
pub(crate) fn memory_allowed_bytes() -> Option<usize> {
    let mut list = [0; LIST_BYTES];
    let list = read(c"/proc/self/cgroup", &mut list).unwrap_or_default();
    let of_groups = least_of_groups(list, |parts| {
        let mut path = [0; PATH_BYTES];
        let mut number = [0; NUMBER_BYTES];
        limit(read(joined(parts, &mut path)?, &mut number)?)
    });
    let of_addresses = address_space_bytes().map(|bytes| bytes / ADDRESS_SPACE_PARTS);
    least(of_groups, of_addresses)
}

/// The least limit of the groups in `list`, the text of `/proc/self/cgroup`. `file` tells the limit in
/// the file of which the path has these parts.
fn least_of_groups(list: &[u8], mut file: impl FnMut(&[&[u8]]) -> Option<usize>) -> Option<usize> {
    let mut found = None;
    for line in list.split(|byte| *byte == b'\n') {
        let Some((controllers, group)) = group_of(line) else {
            continue;
        };
        let (top, names): (&[u8], &[&[u8]]) = if controllers.is_empty() {
            (b"/sys/fs/cgroup", &[b"/memory.max", b"/memory.high"])
        } else if controllers
            .split(|byte| *byte == b',')
            .any(|name| name == b"memory")
        {
            (b"/sys/fs/cgroup/memory", &[b"/memory.limit_in_bytes"])
        } else {
            continue;
        };
        for group in and_those_above(group) {
            for name in names {
                found = least(found, file(&[top, group, name]));
            }
        }
    }
    found
}

fn least(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    one.into_iter().chain(other).min()
}

/// Controllers and path in a line `number:controllers:path`.
fn group_of(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let (_number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    // Outside the container's own part of the tree, of which nothing is to be seen from here.
    let is_outside = path.split(|byte| *byte == b'/').any(|name| name == b"..");
    Some((controllers, if is_outside { b"/" } else { path }))
}

/// The path of a group, of the one above it, and so on; the top is the empty path.
fn and_those_above(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    core::iter::successors(Some(path), |path| {
        let slash = path.iter().rposition(|byte| *byte == b'/')?;
        path.get(..slash)
    })
}

/// The limit that a file tells; none if it says `max`.
fn limit(text: &[u8]) -> Option<usize> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let bytes = digits.iter().try_fold(0_usize, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| usize::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    (bytes < NO_LIMIT).then_some(bytes)
}

/// One string of several parts, if it fits.
fn joined<'a>(parts: &[&[u8]], path: &'a mut [u8; PATH_BYTES]) -> Option<&'a CStr> {
    let mut len = 0;
    for part in parts {
        path.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    *path.get_mut(len)? = 0;
    CStr::from_bytes_with_nul(path.get(..=len)?).ok()
}

/// The limit of the process's address space.
pub(crate) fn address_space_bytes() -> Option<usize> {
    let _errno = KeepErrno::new();
    let mut limits = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    let none = core::ptr::null::<libc::rlimit>();
    // SAFETY: `limits` is valid for writes, and of the kernel's type on 64-bit systems; process 0 is this.
    unsafe { libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_AS, none, &mut limits) };
    (limits.rlim_cur != libc::RLIM_INFINITY)
        .then(|| usize::try_from(limits.rlim_cur).unwrap_or(usize::MAX))
}

/// What is in a file, as far as there is room. `None` if it can't be read.
pub(super) fn read<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let _errno = KeepErrno::new();
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: a string.
    let file = restarted(|| unsafe {
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0)
    })? as c_int;
    let mut len = 0;
    let done = loop {
        let room = buffer.get_mut(len..).unwrap_or_default();
        // SAFETY: `room` is valid for writes of its length.
        let read = restarted(|| unsafe {
            libc::syscall(libc::SYS_read, file, room.as_mut_ptr(), room.len())
        });
        match read {
            Some(0) => break true,
            Some(bytes) => len += bytes,
            None => break false,
        }
    };
    // SAFETY: the file was opened above and nobody else has it. It is closed also if that is
    // interrupted.
    unsafe { libc::syscall(libc::SYS_close, file) };
    done.then(|| buffer.get(..len))?
}

/// The result of a system call, which is made again as long as a signal interrupts it. `None` if it fails.
pub(super) fn restarted(mut call: impl FnMut() -> i64) -> Option<usize> {
    loop {
        let result = call();
        // SAFETY: `__errno_location` always returns this thread's valid errno.
        if result >= 0 || unsafe { *libc::__errno_location() } != libc::EINTR {
            return usize::try_from(result).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;
    use crate::alone::alone;

    /// The limit if the files are these; all others are not there.
    fn found(list: &str, files: &[(&str, &str)]) -> Option<usize> {
        least_of_groups(list.as_bytes(), |parts| {
            let mut path = [0; PATH_BYTES];
            let path = joined(parts, &mut path)?.to_str().unwrap();
            let text = files.iter().find(|(name, _)| *name == path)?.1;
            limit(text.as_bytes())
        })
    }

    #[test]
    fn least_of_the_group_and_those_above_holds() {
        let list = "0::/user.slice/app.service\n";
        let own = "/sys/fs/cgroup/user.slice/app.service/memory.max";
        let own_high = "/sys/fs/cgroup/user.slice/app.service/memory.high";
        let above = "/sys/fs/cgroup/user.slice/memory.max";
        let top = "/sys/fs/cgroup/memory.max";
        assert_eq!(found(list, &[]), None);
        assert_eq!(found(list, &[(own, "max\n"), (own_high, "max\n")]), None);
        assert_eq!(found(list, &[(own, "1000\n")]), Some(1000));
        assert_eq!(
            found(list, &[(own, "1000\n"), (own_high, "900\n")]),
            Some(900)
        );
        assert_eq!(found(list, &[(own, "max\n"), (above, "800\n")]), Some(800));
        assert_eq!(found(list, &[(own, "1000\n"), (above, "800\n")]), Some(800));
        assert_eq!(found(list, &[(own, "700\n"), (top, "800\n")]), Some(700));
    }

    #[test]
    fn container_is_found_at_the_top() {
        let top = [("/sys/fs/cgroup/memory.max", "536870912\n")];
        for list in [
            "0::/\n",
            "0::/docker/0123456789abcdef\n",
            "0::/../../other\n",
        ] {
            assert_eq!(found(list, &top), Some(512 << 20), "{list}");
        }
    }

    #[test]
    fn path_outside_the_container_is_not_followed() {
        let outside = [("/sys/fs/cgroup/../../other/memory.max", "1\n")];
        assert_eq!(found("0::/../../other\n", &outside), None);
    }

    #[test]
    fn first_version_has_its_own_hierarchy() {
        let list = "12:cpu,cpuacct:/a\n11:memory:/docker/x\n1:name=systemd:/b\n0::/c\n";
        let none = "9223372036854771712\n";
        let own = "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes";
        let top = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(found(list, &[(own, "4096\n"), (top, none)]), Some(4096));
        assert_eq!(found(list, &[(own, none), (top, none)]), None);
        assert_eq!(found(list, &[(top, "8192\n")]), Some(8192));
        let joint = "3:hugetlb,memory:/docker/x\n";
        assert_eq!(found(joint, &[(own, "4096\n")]), Some(4096));
        let other = "3:memory2:/docker/x\n";
        assert_eq!(found(other, &[(own, "4096\n")]), None);
    }

    #[test]
    fn nonsense_is_no_limit() {
        for list in ["", "\n", "0", "0:", "x::", "::\n:\n"] {
            assert_eq!(found(list, &[]), None, "{list:?}");
        }
        for text in [
            "",
            "\n",
            "max\n",
            "-1\n",
            "12x\n",
            "1 2\n",
            "99999999999999999999\n",
        ] {
            assert_eq!(limit(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(limit(b"0\n"), Some(0));
        assert_eq!(limit(b"123"), Some(123));
        assert_eq!(limit(b"9223372036854710272\n"), None);
    }

    #[test]
    fn groups_above_go_up_to_the_top() {
        let above = |path: &str| -> Vec<String> {
            let groups = and_those_above(path.as_bytes());
            groups
                .map(|group| String::from_utf8_lossy(group).into())
                .collect()
        };
        assert_eq!(above("/a/b"), ["/a/b", "/a", ""]);
        assert_eq!(above("/"), [""]);
        assert_eq!(above(""), [""]);
    }

    #[test]
    fn path_that_is_too_long_is_none() {
        let long = [b'x'; PATH_BYTES];
        let mut path = [0; PATH_BYTES];
        assert!(joined(&[&long], &mut path).is_none());
        assert!(joined(&[&long[1..]], &mut path).is_some());
    }

    #[test]
    fn file_is_read_as_far_as_there_is_room() {
        let mut whole = [0; LIST_BYTES];
        let status = read(c"/proc/self/status", &mut whole).unwrap();
        assert!(status.starts_with(b"Name:"));
        let mut little = [0; 5];
        assert_eq!(read(c"/proc/self/status", &mut little), Some(&b"Name:"[..]));
        assert_eq!(read(c"/proc/self/nothing", &mut little), None);
    }

    #[test]
    fn errno_and_the_process_are_left_as_they_were() {
        alone(|| {
            let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let before = files();
            // SAFETY: `__errno_location` always returns this thread's valid errno.
            unsafe { *libc::__errno_location() = 1234 };
            let allowed = memory_allowed_bytes();
            // SAFETY: as above.
            assert_eq!(unsafe { *libc::__errno_location() }, 1234);
            assert!(allowed.is_none_or(|bytes| bytes > 0));
            assert_eq!(files(), before);
        });
    }
}
