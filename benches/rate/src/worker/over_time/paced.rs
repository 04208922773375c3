//! `sawtooth` and `growth`: a program whose need follows the clock.
//!
//! `sawtooth` is one that does the same again and again, such as a job for each batch of data:
//! whoever gives all memory back at once has to fetch it again a second later. `growth` is one that
//! grows and shrinks slowly, which memory should follow.

use std::time::{Duration, Instant};

use super::figures::{Figures, Used};
use super::heap::Heap;
use super::sampler::{Sampler, rss_bytes};
use super::{Setting, Told, sleep_until};
use crate::random::Random;

/// Seconds between two looks at the clock.
const STEP: f64 = 0.005;

/// Objects that are allocated or freed between them, at most.
const OBJECTS: u32 = 64;

/// How the need swings.
struct Swing {
    least_bytes: usize,
    most_bytes: usize,
    /// Bits of the least and the largest size.
    sizes: (u32, u32),
    /// Up, or down.
    half: Duration,
    cycles: u32,
}

impl Swing {
    /// The need after some time.
    fn need(&self, elapsed: Duration) -> usize {
        let phase = elapsed.as_secs_f64() / self.half.as_secs_f64() % 2.0;
        let part = if phase < 1.0 { phase } else { 2.0 - phase };
        self.least_bytes + (part * (self.most_bytes - self.least_bytes) as f64) as usize
    }
}

pub fn sawtooth(setting: &Setting) -> Result<Told, String> {
    let half = setting.seconds(1.0);
    let total = setting.scaled_seconds(60.0, 10.0);
    let swing = Swing {
        least_bytes: setting.amount(100 << 20),
        most_bytes: setting.amount(1 << 30),
        sizes: (8, 16),
        half,
        cycles: (total.as_secs_f64() / (2.0 * half.as_secs_f64())).round() as u32,
    };
    let (swung, samples) = run(setting, &swing)?;
    let series = samples.series();
    let mut figures = Figures::default();
    figures.tell("cpu_s", swung.cpu_seconds);
    let per_cycle = swung.faults / f64::from(swing.cycles);
    figures.tell("faults_per_cycle", per_cycle);
    figures.tell_means(&series);
    figures.tell_peak(&series);
    Ok((figures, samples))
}

pub fn growth(setting: &Setting) -> Result<Told, String> {
    let swing = Swing {
        least_bytes: 0,
        most_bytes: setting.amount(512 << 20),
        sizes: (4, 16),
        half: setting.scaled_seconds(10.0, 2.5),
        cycles: 1,
    };
    let (swung, samples) = run(setting, &swing)?;
    let series = samples.series();
    let mut figures = Figures::default();
    figures.tell("cpu_s", swung.cpu_seconds);
    figures.tell("faults", swung.faults);
    figures.tell_means(&series);
    figures.tell_peak(&series);
    figures.tell("rss_at_end_bytes", swung.rss_at_end as f64);
    Ok((figures, samples))
}

/// What swinging cost.
struct Swung {
    cpu_seconds: f64,
    faults: f64,
    rss_at_end: usize,
}

fn run(setting: &Setting, swing: &Swing) -> Result<(Swung, super::Samples), String> {
    let total = swing.half * (2 * swing.cycles);
    // Objects have 8 KiB or more in the mean.
    let mut heap = Heap::new(0, swing.most_bytes / 2048 + 1024);
    let mut random = Random::new(82);
    let sampler = Sampler::start(setting, total)?;
    // As far as it gets with a few objects, so that who is slow does not miss the turn of the clock.
    // Returns whether it got there; what returns null is tried again with the next step.
    let mut follow = |need: usize| {
        let grows = heap.bytes() < need;
        for _ in 0..OBJECTS {
            if grows {
                let has_room = heap.add(random.size(swing.sizes.0, swing.sizes.1));
                if !has_room || heap.bytes() >= need {
                    return true;
                }
            } else {
                if heap.bytes() <= need {
                    return true;
                }
                heap.remove_random(&mut random);
            }
        }
        false
    };
    while !follow(swing.least_bytes) {}
    let before = Used::now();
    let start = Instant::now();
    let step = setting.seconds(STEP);
    loop {
        let elapsed = start.elapsed();
        if elapsed >= total {
            break;
        }
        if follow(swing.need(elapsed)) {
            sleep_until(start + elapsed + step);
        }
    }
    while !follow(swing.least_bytes) {}
    let (cpu_seconds, faults) = Used::now().since(&before);
    let rss_at_end = rss_bytes();
    let samples = sampler.stop()?;
    let swung = Swung {
        cpu_seconds,
        faults,
        rss_at_end,
    };
    Ok((swung, samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_need_goes_up_and_down() {
        let swing = Swing {
            least_bytes: 100,
            most_bytes: 300,
            sizes: (4, 5),
            half: Duration::from_secs(1),
            cycles: 2,
        };
        let need = |ms| swing.need(Duration::from_millis(ms));
        assert_eq!([0, 500, 1000, 1500].map(need), [100, 200, 300, 200]);
        assert_eq!([2000, 2500, 3000, 3500].map(need), [100, 200, 300, 200]);
    }
}
