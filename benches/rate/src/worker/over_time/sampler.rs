//! Takes samples of what the scenario needs and what is resident, in a thread of its own.
//!
//! It calls the allocator in no way while it runs: it reads a file that is open already into a buffer
//! on its stack, and writes to an array that was made before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use spanmalloc_rate::over_time::Series;

use super::heap::{need_bytes, own_array, own_bytes};
use super::{Setting, sleep_until};

/// Seconds between samples.
const INTERVAL: f64 = 0.1;

/// At which it ends.
static STOP: AtomicBool = AtomicBool::new(false);

/// `/proc/self/statm`, from the start on, and the bytes of a page.
static STATM: OnceLock<(File, usize)> = OnceLock::new();

#[derive(Clone, Copy, Default)]
struct Sample {
    at_ms: u64,
    need_bytes: u64,
    rss_bytes: u64,
}

/// A thread that takes samples.
pub struct Sampler(JoinHandle<Samples>);

/// What it took.
pub struct Samples(&'static [Sample]);

impl Sampler {
    /// Starts it, for a scenario that sleeps or works for so long, beside what it cannot foresee.
    pub fn start(setting: &Setting, expected: Duration) -> Result<Self, String> {
        let told = |error: io::Error| format!("no sampler: {error}");
        let file = File::open("/proc/self/statm").map_err(told)?;
        // SAFETY: reads a constant of the system.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        STATM.get_or_init(|| (file, usize::try_from(page).unwrap_or(4096)));
        let interval = setting.seconds(INTERVAL);
        // A machine that is slow, or busy, may take several times as long.
        let seconds = 4.0 * expected.as_secs_f64() + setting.seconds(60.0).as_secs_f64();
        let most = (seconds / interval.as_secs_f64()) as usize;
        let samples = own_array(most, Sample::default());
        let start = Instant::now();
        let thread = thread::Builder::new()
            .spawn(move || take(samples, start, interval))
            .map_err(told)?;
        Ok(Self(thread))
    }

    /// Ends it, with a last sample.
    pub fn stop(self) -> Result<Samples, String> {
        STOP.store(true, Ordering::Relaxed);
        self.0.join().map_err(|_| "the sampler failed".to_owned())
    }
}

fn take(samples: &'static mut [Sample], start: Instant, interval: Duration) -> Samples {
    let mut taken = 0;
    let mut next = start;
    while taken < samples.len() {
        let ends = STOP.load(Ordering::Relaxed);
        samples[taken] = Sample {
            at_ms: start.elapsed().as_millis() as u64,
            need_bytes: need_bytes() as u64,
            rss_bytes: rss_bytes() as u64,
        };
        taken += 1;
        if ends {
            break;
        }
        // Samples that came late are not made up for.
        while next <= Instant::now() {
            next += interval;
        }
        sleep_until(next);
    }
    let samples: &'static [Sample] = samples;
    Samples(&samples[..taken])
}

/// What is resident now, without the scenario's own arrays; 0 before the sampler was started.
pub fn rss_bytes() -> usize {
    let mut text = [0; 128];
    let resident = STATM.get().and_then(|(file, page)| {
        let len = file.read_at(&mut text, 0).ok()?;
        Some(resident_pages(text.get(..len)?)? * page)
    });
    resident.unwrap_or(0).saturating_sub(own_bytes())
}

/// The second number of the line, in pages.
fn resident_pages(statm: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(statm).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

impl Samples {
    pub fn series(&self) -> Series {
        let all = self.0.iter();
        Series {
            at_ms: all.clone().map(|it| it.at_ms).collect(),
            need_bytes: all.clone().map(|it| it.need_bytes).collect(),
            rss_bytes: all.map(|it| it.rss_bytes).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_number_is_resident() {
        assert_eq!(resident_pages(b"1000 234 56 7 0 8 0\n"), Some(234));
        assert_eq!(resident_pages(b"1000"), None);
        assert_eq!(resident_pages(b"1000 x"), None);
    }
}
