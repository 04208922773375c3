//! Linux, glibc and musl. See the contract in the parent module.

#![allow(unsafe_code)]

use core::ffi::{CStr, c_int, c_void};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

use super::fails;

/// Restores `errno` when dropped, so that no call of this floor changes it.
pub(super) struct KeepErrno(c_int);

impl KeepErrno {
    pub(super) fn new() -> Self {
        // SAFETY: `__errno_location` always returns this thread's valid errno.
        Self(unsafe { *libc::__errno_location() })
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        // SAFETY: as in `new`.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

/// This thread's error number.
pub(super) fn error() -> c_int {
    // SAFETY: as in `KeepErrno::new`.
    unsafe { *libc::__errno_location() }
}

/// This thread's error number, for the faces that report by it.
#[cfg(feature = "preload")]
pub(crate) fn errno() -> c_int {
    error()
}

/// Sets this thread's error number.
#[cfg(feature = "preload")]
pub(crate) fn set_errno(code: c_int) {
    // SAFETY: as in `KeepErrno::new`.
    unsafe { *libc::__errno_location() = code };
}

/// Maps `bytes` anonymous bytes at `hint` (exactly there if `flags` say so).
fn mmap(hint: usize, bytes: usize, protection: c_int, flags: c_int) -> Option<NonNull<u8>> {
    if fails() {
        return None;
    }
    let _errno = KeepErrno::new();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: an anonymous mapping at a place of the kernel's choice, or at a hint that replaces
    // nothing (no caller passes MAP_FIXED), touches no existing memory.
    let address = unsafe {
        libc::mmap(
            ptr::without_provenance_mut(hint),
            bytes,
            protection,
            flags,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        None
    } else {
        NonNull::new(address.cast())
    }
}

/// Reserves `bytes` of address space exactly at `address`, if nothing is there yet.
///
/// No commit charge; the memory can't be touched before [`commit`].
///
/// `charged` as for [`reserve`].
pub(crate) fn reserve_at(address: usize, bytes: usize, charged: bool) -> Option<NonNull<u8>> {
    let flags = if charged { 0 } else { libc::MAP_NORESERVE };
    let flags = flags | libc::MAP_FIXED_NOREPLACE;
    let start = mmap(address, bytes, libc::PROT_NONE, flags)?;
    if start.addr().get() == address {
        return Some(start);
    }
    // Kernels before 4.17 take the address as a mere hint.
    // SAFETY: the mapping was made above and nobody else knows it.
    unsafe { unmap(start, bytes) };
    None
}

/// Reserves `bytes` of address space whose start is a multiple of `align` (a power of two), where
/// the kernel likes. With `charged`, a later [`commit`] is subject to the system's overcommit
/// policy, so that absurd requests are refused.
pub(crate) fn reserve(bytes: usize, align: usize, charged: bool) -> Option<NonNull<u8>> {
    let padded = bytes.checked_add(align)?;
    let flags = if charged { 0 } else { libc::MAP_NORESERVE };
    let start = mmap(0, padded, libc::PROT_NONE, flags)?;
    let head = start.addr().get().wrapping_neg() & (align - 1);
    // SAFETY: `head` < `align`, so all three parts lie inside the mapping of `padded` bytes made
    // above, which nobody else knows; head and tail are whole system pages, since `align` and
    // `bytes` are.
    unsafe {
        let aligned = start.add(head);
        if head != 0 {
            unmap(start, head);
        }
        unmap(aligned.add(bytes), padded - head - bytes);
        Some(aligned)
    }
}

/// Makes reserved memory readable and writable. False if the system has no memory for it.
///
/// # Safety
/// * `start` and `bytes` are multiples of the system's page size.
/// * The range was reserved by this floor, and its owner calls.
pub(crate) unsafe fn commit(start: NonNull<u8>, bytes: usize) -> bool {
    if fails() {
        return false;
    }
    let _errno = KeepErrno::new();
    // SAFETY: the caller owns the range; wider access to it breaks nobody's assumption.
    unsafe {
        libc::mprotect(
            start.as_ptr().cast(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
        ) == 0
    }
}

/// Takes access to committed memory away, whose contents stay; [`commit`] gives it back. False if the system
/// refuses (the kernel's limit on the number of mappings).
///
/// # Safety
/// As for [`commit`], and nothing uses the range meanwhile.
pub(crate) unsafe fn protect(start: NonNull<u8>, bytes: usize) -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: the caller owns the range, and gives up access to it.
    unsafe { libc::mprotect(start.as_ptr().cast(), bytes, libc::PROT_NONE) == 0 }
}

/// A number that nobody can guess.
#[cfg(feature = "secure")]
pub(crate) fn random() -> u64 {
    let _errno = KeepErrno::new();
    let mut bytes = [0; 8];
    // SAFETY: the buffer is valid for writes of its length. A short or failed read leaves zeros.
    let read = unsafe {
        libc::syscall(
            libc::SYS_getrandom,
            bytes.as_mut_ptr(),
            bytes.len(),
            libc::GRND_NONBLOCK,
        )
    };
    if read == bytes.len() as i64 {
        return u64::from_ne_bytes(bytes);
    }
    // Before the kernel's generator is ready: what the kernel gave this process at its start, and the time.
    // SAFETY: no precondition.
    let at_random = unsafe { libc::getauxval(libc::AT_RANDOM) } as usize;
    let given = NonNull::new(ptr::with_exposed_provenance_mut::<u64>(at_random));
    // SAFETY: the kernel's 16 random bytes, which stay on the stack of the first thread.
    let given = given.map_or(0, |given| unsafe { given.read_unaligned() });
    given ^ now_ns().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Maps `bytes` of zeroed memory, ready for use: for the allocator's own records.
pub(crate) fn map(bytes: usize) -> Option<NonNull<u8>> {
    mmap(
        0,
        bytes,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_NORESERVE,
    )
}

/// Gives a mapping a name, which `/proc/self/maps` shows where the kernel can (5.17, with
/// `CONFIG_ANON_VMA_NAME`). Whole system pages of mappings made by this floor.
pub(crate) fn name_mapping(start: NonNull<u8>, bytes: usize, name: &'static CStr) {
    let _errno = KeepErrno::new();
    // SAFETY: a name changes neither contents nor access.
    unsafe {
        libc::prctl(
            libc::PR_SET_VMA,
            libc::PR_SET_VMA_ANON_NAME,
            start.as_ptr(),
            bytes,
            name.as_ptr(),
        );
    }
}

/// Says whether a range belongs into core dumps.
///
/// # Safety
/// The range is whole system pages of mappings made by this floor.
pub(crate) unsafe fn set_dumped(start: NonNull<u8>, bytes: usize, dumped: bool) {
    let _errno = KeepErrno::new();
    let advice = if dumped {
        libc::MADV_DODUMP
    } else {
        libc::MADV_DONTDUMP
    };
    // SAFETY: advice changes no contents, and the caller owns the range.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, advice) };
}

/// Gives memory and address space back.
///
/// # Safety
/// * The range is whole system pages of mappings made by this floor, and its owner calls.
/// * Nothing refers to it any more.
pub(crate) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
    if bytes == 0 {
        return;
    }
    let _errno = KeepErrno::new();
    // SAFETY: the caller owns the range and gives it up. A failure (the kernel's limit on the
    // number of mappings) leaves the range mapped and unused: a leak of address space, no more, as
    // its memory goes back all the same.
    unsafe {
        if libc::munmap(start.as_ptr().cast(), bytes) != 0 {
            libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED);
        }
    }
}

/// Gives the pages of a committed range back; they read as zero afterwards (`MADV_DONTNEED`). With
/// `lazily` the kernel takes them when it needs memory, and until then they may have any contents
/// (`MADV_FREE`). False if the kernel refused, and then the contents are as before.
///
/// # Safety
/// * The range is whole system pages, committed by this floor, and its owner calls.
/// * Nothing lives in it.
pub(crate) unsafe fn release(start: NonNull<u8>, bytes: usize, lazily: bool) -> bool {
    let _errno = KeepErrno::new();
    let advice = if lazily {
        libc::MADV_FREE
    } else {
        libc::MADV_DONTNEED
    };
    // SAFETY: the caller owns the range, and no object lives in it.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, advice) == 0 }
}

/// Has the system back the pages of a committed range now, in one call instead of a fault for each
/// (`MADV_POPULATE_WRITE`, Linux 5.14). What it does not do comes by faults, as else; and where it refuses to, it is
/// not asked again.
///
/// # Safety
/// The range was committed by this floor, and its owner calls.
pub(crate) unsafe fn prefault(start: NonNull<u8>, bytes: usize) {
    /// **Any thread; atomic**, a note.
    static REFUSES: AtomicBool = AtomicBool::new(false);
    if REFUSES.load(Relaxed) || !(start.addr().get() | bytes).is_multiple_of(page_bytes()) {
        return;
    }
    let _errno = KeepErrno::new();
    // SAFETY: advice changes no contents, and the caller owns the range.
    if unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) } != 0 {
        REFUSES.store(true, Relaxed);
    }
}

/// Ends the access to a committed range and gives its pages back: it is as when it was reserved. False if the
/// kernel refused to, and then it can still be read and written.
///
/// # Safety
/// As for [`release`].
#[cfg(feature = "guarded")]
pub(crate) unsafe fn decommit(start: NonNull<u8>, bytes: usize) -> bool {
    let _errno = KeepErrno::new();
    // SAFETY: the caller owns the range, and no object lives in it.
    unsafe {
        let ended = libc::mprotect(start.as_ptr().cast(), bytes, libc::PROT_NONE) == 0;
        libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_DONTNEED);
        ended
    }
}

/// Asks for transparent huge pages in a committed range; the kernel may ignore it.
///
/// # Safety
/// The range is whole system pages of mappings made by this floor.
pub(crate) unsafe fn advise_huge_pages(start: NonNull<u8>, bytes: usize) {
    let _errno = KeepErrno::new();
    // SAFETY: advice changes no contents, and the caller owns the range.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
}

/// Asks for no transparent huge pages in a committed range.
///
/// # Safety
/// The range is whole system pages of mappings made by this floor.
pub(crate) unsafe fn advise_small_pages(start: NonNull<u8>, bytes: usize) {
    let _errno = KeepErrno::new();
    // SAFETY: as in `advise_huge_pages`.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_NOHUGEPAGE) };
}

/// Changes the length of a mapping without moving it. False if its neighbour is in the way.
///
/// # Safety
/// * `start` is a committed mapping of exactly `old_bytes` made by this floor; its owner calls.
/// * Both lengths are whole system pages.
pub(crate) unsafe fn resize_in_place(
    start: NonNull<u8>,
    old_bytes: usize,
    new_bytes: usize,
) -> bool {
    if fails() {
        return false;
    }
    let _errno = KeepErrno::new();
    // SAFETY: without MREMAP_MAYMOVE the mapping grows into free address space or not at all.
    unsafe { libc::mremap(start.as_ptr().cast(), old_bytes, new_bytes, 0) != libc::MAP_FAILED }
}

/// Moves the pages of one mapping to another place and length, without copying.
///
/// # Safety
/// * `from` is a committed mapping of exactly `old_bytes`, `to` a reservation of at least
///   `new_bytes`, both made by this floor; their owner calls.
/// * Nothing refers to `from` afterwards if the call returns true, nor to `to` before.
pub(crate) unsafe fn move_pages(
    from: NonNull<u8>,
    old_bytes: usize,
    to: NonNull<u8>,
    new_bytes: usize,
) -> bool {
    if fails() {
        return false;
    }
    let _errno = KeepErrno::new();
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let target: *mut c_void = to.as_ptr().cast();
    // SAFETY: the target is the caller's own reservation, the only thing that the call replaces.
    unsafe {
        libc::mremap(from.as_ptr().cast(), old_bytes, new_bytes, flags, target) != libc::MAP_FAILED
    }
}

/// The system's page size in bytes (4, 16 or 64 KiB), read once.
pub(crate) fn page_bytes() -> usize {
    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: every thread computes the same number and nothing else is published by it.
    match PAGE_BYTES.load(Relaxed) {
        0 => {
            // SAFETY: no precondition.
            let bytes = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
            let bytes = if bytes.is_power_of_two() { bytes } else { 4096 };
            PAGE_BYTES.store(bytes, Relaxed);
            bytes
        }
        bytes => bytes,
    }
}

/// CPUs that this process may run on, at least one.
pub(crate) fn cpu_count() -> usize {
    let _errno = KeepErrno::new();
    // SAFETY: an all-zero `cpu_set_t` is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: `set` is valid for writes of its own size; pid 0 is the calling thread.
    let done = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if done != 0 {
        return 1;
    }
    // SAFETY: `set` is initialised.
    let count = unsafe { libc::CPU_COUNT(&set) };
    count.max(1) as usize
}

/// The CPU that this thread runs on; zero if the kernel does not tell.
#[inline]
pub(crate) fn current_cpu() -> usize {
    // SAFETY: no precondition. glibc reads the restartable-sequence area, musl calls the vDSO; the
    // only error, and the only way to errno, is ENOSYS on kernels before 2.6.19, which std does not
    // run on either.
    let cpu = unsafe { libc::sched_getcpu() };
    usize::try_from(cpu).unwrap_or(0)
}

/// Nanoseconds of CPU time of the calling thread.
pub(crate) fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Nanoseconds since some moment; never turns back. Some milliseconds behind: of the last tick of the
/// kernel's clock, which is read in a few nanoseconds.
pub(crate) fn coarse_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since some moment; never turns back.
pub(crate) fn now_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes. These clocks exist everywhere, so there is no error.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A counter of the processor that runs at one rate on all CPUs.
#[cfg(feature = "lock-stats")]
pub(crate) fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 has the instruction.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let ticks;
        // SAFETY: Linux lets programs read the virtual counter.
        unsafe {
            core::arch::asm!("mrs {ticks}, cntvct_el0", ticks = out(reg) ticks,
                options(nomem, nostack, preserves_flags));
        }
        ticks
    }
}

/// Sleeps while `*word == expected`, until [`futex_wake`]. May return early.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32) {
    let _errno = KeepErrno::new();
    let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let no_timeout = ptr::null::<libc::timespec>();
    // SAFETY: `word` is a live, aligned u32, and the kernel only reads it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, expected, no_timeout) };
}

/// Wakes one thread that sleeps on `word`. Ends the process if the kernel refuses (a filter of system
/// calls that the program has set, say): that thread would sleep for ever.
pub(crate) fn futex_wake(word: &AtomicU32) {
    let _errno = KeepErrno::new();
    let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel uses the address as a key only.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, 1) };
    if woken < 0 {
        write_stderr(b"spanmalloc: the system refuses to wake a thread (futex)\n");
        abort();
    }
}

/// A key whose destructor runs when a thread that set it exits.
#[derive(Clone, Copy)]
pub(crate) struct ExitHook(libc::pthread_key_t);

impl ExitHook {
    /// Creates the key. `None` if the process has no key left; threads then exit without the hook.
    pub(crate) fn new(destructor: unsafe extern "C" fn(*mut c_void)) -> Option<Self> {
        let _errno = KeepErrno::new();
        let mut key = 0;
        // SAFETY: `key` is valid for writes; the destructor is a plain function of this library.
        let error = unsafe { libc::pthread_key_create(&mut key, Some(destructor)) };
        (error == 0).then_some(Self(key))
    }

    /// The calling thread's value, if it was set.
    pub(crate) fn value(self) -> Option<NonNull<c_void>> {
        // SAFETY: the key is valid for the life of the process.
        NonNull::new(unsafe { libc::pthread_getspecific(self.0) })
    }

    /// Arranges that the destructor runs with `value` when this thread exits. May call the C
    /// library's `calloc` (glibc, keys from 32 on).
    /// False if there is no memory for it.
    pub(crate) fn set(self, value: NonNull<c_void>) -> bool {
        let _errno = KeepErrno::new();
        // SAFETY: the key is valid for the life of the process.
        unsafe { libc::pthread_setspecific(self.0, value.as_ptr()) == 0 }
    }
}

/// Writes to standard error, without buffering; errors are ignored. The system call itself, as the
/// C library's function is a point where threads can be cancelled.
pub(crate) fn write_stderr(text: &[u8]) {
    let _errno = KeepErrno::new();
    // SAFETY: `text` is valid for reads of its length.
    unsafe { libc::syscall(libc::SYS_write, 2, text.as_ptr(), text.len()) };
}

/// A number that no other thread of the process has, the same in the child of a `fork`.
pub(crate) fn thread_id() -> usize {
    // SAFETY: no precondition.
    unsafe { libc::pthread_self() as usize }
}

/// Ends the process with SIGABRT.
pub(crate) fn abort() -> ! {
    // SAFETY: no precondition.
    unsafe { libc::abort() }
}
