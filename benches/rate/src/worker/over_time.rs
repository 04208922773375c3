//! Memory over time: how much a scenario needs, and how much is resident.
//!
//! ```text
//! rate-worker --over-time SCENARIO [--scale quick|full] [--speed X] [--shrink N]
//! ```
//!
//! A thread takes samples while the scenario runs ([`sampler`]). Whatever is kept about objects and
//! samples is in arrays that do not come from the allocator, are resident from the start, and are not
//! in what is told as RSS. `--speed` divides all durations, and `--shrink` what is allocated and how
//! many threads idle: both are for tests, and for a look under a profiler.

mod burst;
mod figures;
mod heap;
mod idle_threads;
mod limited;
mod paced;
mod sampler;

use std::thread;
use std::time::{Duration, Instant};

use spanmalloc_rate::Scale;
use spanmalloc_rate::over_time::{Course, SCENARIOS};

use figures::Figures;
use sampler::Samples;

/// How large a scenario is, and how long it takes.
#[derive(Clone, Copy)]
struct Setting {
    scale: Scale,
    speed: f64,
    shrink: usize,
}

impl Setting {
    /// A duration of the same length in quick runs.
    fn seconds(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds / self.speed)
    }

    /// A duration that quick runs cut short.
    fn scaled_seconds(&self, full: f64, quick: f64) -> Duration {
        self.seconds(match self.scale {
            Scale::Full => full,
            Scale::Quick => quick,
        })
    }

    /// Bytes of all threads together, or a number of threads.
    fn amount(&self, full: usize) -> usize {
        (full / self.shrink).max(1)
    }
}

/// What a scenario tells.
type Told = (Figures, Samples);

/// Runs a scenario.
type Function = fn(&Setting) -> Result<Told, String>;

/// The answer to `--over-time`, in JSON.
pub fn answer(mut arguments: impl Iterator<Item = String>) -> Result<String, String> {
    let name = arguments.next().ok_or("--over-time needs a scenario")?;
    let mut setting = Setting {
        scale: Scale::Full,
        speed: 1.0,
        shrink: 1,
    };
    while let Some(option) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{option} needs a value"))?;
        match (option.as_str(), value.as_str()) {
            ("--scale", "quick") => setting.scale = Scale::Quick,
            ("--scale", "full") => setting.scale = Scale::Full,
            ("--speed", number) => {
                let speed = number.parse().ok();
                let speed = speed.filter(|speed| (0.01..=1000.0).contains(speed));
                setting.speed =
                    speed.ok_or_else(|| format!("{number} is no speed, 0.01 to 1000"))?;
            }
            ("--shrink", number) => {
                let shrink = number.parse().ok();
                let shrink = shrink.filter(|shrink| (1..=1000).contains(shrink));
                setting.shrink =
                    shrink.ok_or_else(|| format!("{number} is no divisor, 1 to 1000"))?;
            }
            _ => return Err(format!("{option} {value} is not understood")),
        }
    }
    let run = function(&name).ok_or_else(|| {
        let names = SCENARIOS.map(|it| it.name).join(", ");
        format!("there is no scenario {name}; there are {names}")
    })?;
    let (figures, samples) = run(&setting)?;
    let course = Course {
        scenario: name,
        figures: figures.into_list(),
        series: samples.series(),
    };
    serde_json::to_string(&course).map_err(|error| error.to_string())
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "burst" => burst::burst,
        "burst-calls" => burst::burst_calls,
        "sawtooth" => paced::sawtooth,
        "growth" => paced::growth,
        "idle-threads" => idle_threads::idle_threads,
        "limited" => limited::limited,
        _ => return None,
    })
}

/// Sleeps up to a moment, if it is not over yet, without a call of the allocator.
fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_function() {
        for scenario in SCENARIOS {
            assert!(function(scenario.name).is_some(), "{}", scenario.name);
        }
        assert!(function("none").is_none());
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for wrong in [
            &[][..],
            &["none"],
            &["burst", "--speed"],
            &["burst", "--speed", "0"],
            &["burst", "--shrink", "0"],
            &["burst", "--scale", "huge"],
        ] {
            let arguments = wrong.iter().map(|it| it.to_string());
            assert!(answer(arguments).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn quick_runs_are_short_where_that_is_allowed() {
        let mut setting = Setting {
            scale: Scale::Full,
            speed: 2.0,
            shrink: 10,
        };
        assert_eq!(setting.scaled_seconds(60.0, 10.0), Duration::from_secs(30));
        setting.scale = Scale::Quick;
        assert_eq!(setting.scaled_seconds(60.0, 10.0), Duration::from_secs(5));
        assert_eq!(setting.seconds(12.0), Duration::from_secs(6));
        assert_eq!(setting.amount(1000), 100);
        assert_eq!(setting.amount(4), 1);
    }
}
