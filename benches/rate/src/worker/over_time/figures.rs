//! The figures of a scenario.

use spanmalloc_rate::over_time::{Figure, Series};

use super::heap::{nulls, own_bytes};
use crate::measure::{cpu_ns, memory_bytes};

/// Results by name, in the order in which they were told.
#[derive(Default)]
pub struct Figures(Vec<Figure>);

impl Figures {
    pub fn tell(&mut self, name: &str, value: f64) {
        self.0.push(Figure {
            name: name.to_owned(),
            value,
        });
    }

    /// The same if there is a value.
    pub fn tell_if(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.tell(name, value);
        }
    }

    /// What the need and the memory were over time.
    pub fn tell_means(&mut self, series: &Series) {
        let need = mean(&series.at_ms, &series.need_bytes);
        let rss = mean(&series.at_ms, &series.rss_bytes);
        self.tell_if("mean_need_bytes", need);
        self.tell_if("mean_rss_bytes", rss);
        let ratio = rss.zip(need).filter(|(_, need)| *need > 0.0);
        self.tell_if("mean_rss_per_need", ratio.map(|(rss, need)| rss / need));
    }

    /// The most that was resident, as the kernel knows it, or as a sample has it.
    pub fn tell_peak(&mut self, series: &Series) {
        let of_kernel = memory_bytes("VmHWM").saturating_sub(own_bytes() as u64);
        let of_samples = series.rss_bytes.iter().copied().max().unwrap_or(0);
        self.tell("peak_rss_bytes", of_kernel.max(of_samples) as f64);
    }

    /// With the allocations that returned null, if there were any.
    pub fn into_list(mut self) -> Vec<Figure> {
        const NULLS: &str = "null_returns";
        if nulls() > 0 && self.0.iter().all(|it| it.name != NULLS) {
            self.tell(NULLS, nulls() as f64);
        }
        self.0
    }
}

/// What the process used up to a moment.
pub struct Used {
    cpu_ns: u64,
    minor_faults: u64,
}

impl Used {
    pub fn now() -> Self {
        // SAFETY: an all-zero `rusage` is valid, and valid for writes.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        let (user, system) = cpu_ns();
        Self {
            cpu_ns: user + system,
            minor_faults: u64::try_from(usage.ru_minflt).unwrap_or(0),
        }
    }

    /// CPU time in seconds, user and system, and page faults without input or output, since another
    /// moment.
    pub fn since(&self, before: &Self) -> (f64, f64) {
        let cpu_ns = self.cpu_ns.saturating_sub(before.cpu_ns);
        let faults = self.minor_faults.saturating_sub(before.minor_faults);
        (cpu_ns as f64 / 1e9, faults as f64)
    }
}

/// The mean over time, with straight lines between samples; `None` if there is no time between any.
fn mean(at_ms: &[u64], values: &[u64]) -> Option<f64> {
    let pairs = at_ms.windows(2).zip(values.windows(2));
    let (area, length) = pairs.fold((0.0, 0.0), |(area, length), (times, values)| {
        let time = times[1].saturating_sub(times[0]) as f64;
        let middle = f64::midpoint(values[0] as f64, values[1] as f64);
        (area + time * middle, length + time)
    });
    (length > 0.0).then(|| area / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_over_time() {
        assert_eq!(mean(&[], &[]), None);
        assert_eq!(mean(&[5], &[7]), None);
        assert_eq!(mean(&[5, 5], &[7, 7]), None);
        assert_eq!(mean(&[0, 10], &[0, 8]), Some(4.0));
        // A sample that comes late stands for more time.
        assert_eq!(mean(&[0, 10, 40], &[0, 8, 8]), Some(7.0));
    }

    #[test]
    fn means_have_a_ratio_if_anything_was_needed() {
        let names = |need_bytes: &[u64]| -> Vec<(String, f64)> {
            let mut figures = Figures::default();
            figures.tell_means(&Series {
                at_ms: vec![0, 10],
                need_bytes: need_bytes.to_vec(),
                rss_bytes: vec![6, 6],
            });
            figures
                .0
                .into_iter()
                .map(|it| (it.name, it.value))
                .collect()
        };
        let told = names(&[4, 4]);
        assert_eq!(told[2], ("mean_rss_per_need".to_owned(), 1.5));
        assert_eq!(names(&[0, 0]).len(), 2);
    }

    #[test]
    fn use_is_a_difference() {
        let at = |cpu_ns, minor_faults| Used {
            cpu_ns,
            minor_faults,
        };
        assert_eq!(at(2_500_000_000, 9).since(&at(500_000_000, 4)), (2.0, 5.0));
        assert_eq!(at(1, 1).since(&at(2, 2)), (0.0, 0.0));
    }
}
