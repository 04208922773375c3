//! Replays a trace: what a program did with its allocator, done again on the worker's.
//!
//! ```text
//! rate-worker --replay FILE [--scale quick|full] [--rounds N]
//! ```
//!
//! The trace is read and checked before the timed part, and becomes a list of steps for each of its
//! threads ([`Plan`]). The timed part does them in rounds, as one of a small trace would be too short
//! to measure; `--rounds 1` has it once, as in the program. Each thread of the trace is a thread of
//! the replay, which does its own steps in their order; the events of an id are done in the trace's
//! order, whoever does them. What the trace leaves allocated is freed at the end of a round, which
//! counts as events.
//!
//! It writes to each page of an object, as a program would, and looks at what it wrote when the object
//! is moved or freed: another value means that the allocator gave the memory to someone else too.

mod step;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Barrier, OnceLock};
use std::thread;

use spanmalloc_rate::Scale;
use spanmalloc_rate::trace::table::{Table, Zeroed};
use spanmalloc_rate::trace::{Action, Event, Trace};

use crate::measure::{self, Meter};
use crate::workloads::{Size, Workload};
use step::{Kind, Slot, Step};

/// Events of a full run: about a second.
const EVENTS: u64 = 20_000_000;
/// The second reading of a trace differs from the first.
const CHANGED: &str = "the trace changes while it is read";

/// What `--replay` was told.
struct Replay {
    plan: Plan,
    rounds: Option<u64>,
}

/// What is replayed: a workload's function has no arguments for it.
static REPLAY: OnceLock<Replay> = OnceLock::new();

/// The answer to `--replay`, in JSON.
pub fn answer(mut arguments: impl Iterator<Item = String>) -> Result<String, String> {
    let file = arguments.next().ok_or("--replay needs a file")?;
    let mut scale = Scale::Full;
    let mut rounds = None;
    while let Some(option) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{option} needs a value"))?;
        match (option.as_str(), value.as_str()) {
            ("--scale", "quick") => scale = Scale::Quick,
            ("--scale", "full") => scale = Scale::Full,
            ("--rounds", number) => {
                let number = number.parse().ok().filter(|rounds| *rounds > 0);
                rounds = Some(number.ok_or_else(|| format!("{value} is no number of rounds"))?);
            }
            _ => return Err(format!("{option} {value} is not understood")),
        }
    }
    let path = Path::new(&file);
    let plan = Plan::new(&Trace::open(path)?).map_err(|why| format!("{file}: {why}"))?;
    let threads = plan.threads.len();
    let name = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy();
    let workload = Workload {
        name: format!("replay:{name}").leak(),
        about: "",
        operation: "event",
        threads,
        threads_can_be_chosen: false,
        run,
    };
    REPLAY.get_or_init(|| Replay { plan, rounds });
    let answer = measure::answer(&workload, &Size { scale, threads });
    serde_json::to_string(&answer).map_err(|error| error.to_string())
}

fn run(size: &Size, meter: &mut Meter) {
    let Some(Replay { plan, rounds }) = REPLAY.get() else {
        return;
    };
    let rounds = rounds.unwrap_or_else(|| size.of(EVENTS).div_ceil(plan.steps().max(1)));
    meter.run(|| {
        plan.run(rounds);
        rounds.saturating_mul(plan.steps())
    });
    meter.also("rounds", rounds as f64);
    meter.also("trace_peak_live_bytes", plan.peak_live_bytes as f64);
    meter.also("replay_own_bytes", plan.own_bytes() as f64);
}

/// What a trace comes to: the steps of each thread, and the table of objects.
///
/// Invariant 1. Over all threads, the steps of an id have the turns 0, 1, 2 … in the trace's order; the
/// last one, and no other, is marked as such.
/// Invariant 2. In this order, an alloc is followed by reallocs and a free, then by an alloc or the end;
/// all steps from an alloc to its free have its alignment. Sizes are not zero, and a layout is valid.
/// Invariant 3. A slot's turn is that of the step to be done next with its id. Between rounds all are 0,
/// and no object is allocated.
struct Plan {
    threads: Vec<Table<Step>>,
    slots: Table<Slot>,
    peak_live_bytes: u64,
}

/// What is known of an id while the plan is made.
#[derive(Clone, Copy)]
struct Id {
    steps: u32,
    turn: u32,
    /// The thread of its last event so far.
    thread: u32,
    align_log2: u8,
    live: bool,
}

// SAFETY: zeros are numbers and false.
unsafe impl Zeroed for Id {}

impl Plan {
    /// Reads the trace twice: to count, and to fill tables of the right size.
    fn new(trace: &Trace) -> Result<Self, String> {
        let header = trace.header();
        if header.events == 0 {
            return Err("the trace has no events".to_owned());
        }
        if header.peak_live_bytes > memory_bytes() / 2 {
            let bytes = header.peak_live_bytes;
            return Err(format!(
                "its objects take {bytes} bytes, over half of the machine's memory"
            ));
        }
        let mut ids = Table::<Id>::zeroed(header.objects as usize)?;
        let mut counts = Table::<u32>::zeroed(header.threads as usize)?;
        trace.each(|event| {
            let id = &mut ids[event.object as usize];
            id.steps += 1;
            id.thread = event.thread;
            id.live = event.action != Action::Free;
            counts[event.thread as usize] += 1;
            Ok(())
        })?;
        for id in ids.iter_mut().filter(|id| id.live) {
            id.steps += 1;
            counts[id.thread as usize] += 1;
        }
        let mut lists = Vec::new();
        for count in counts.iter() {
            lists.push((Table::zeroed(*count as usize)?, 0));
        }
        let mut push = |event: &Event, id: &mut Id| {
            let (steps, len) = &mut lists[event.thread as usize];
            let step = steps.get_mut(*len).ok_or(CHANGED)?;
            *step = id.step(event);
            *len += 1;
            Ok(())
        };
        trace.each(|event| push(&event, &mut ids[event.object as usize]))?;
        for (object, id) in ids.iter_mut().enumerate().filter(|(_, id)| id.live) {
            let object = object as u32;
            push(
                &Event {
                    thread: id.thread,
                    object,
                    action: Action::Free,
                },
                id,
            )?;
        }
        let whole = lists.iter().all(|(steps, len)| steps.len() == *len);
        if !whole || ids.iter().any(|id| id.turn != id.steps) {
            return Err(CHANGED.to_owned());
        }
        // The table is resident from the start, as another allocator's would be.
        let slots = Table::<Slot>::zeroed(header.objects as usize)?;
        slots
            .iter()
            .for_each(|slot| slot.turn.store(0, Ordering::Relaxed));
        Ok(Self {
            threads: lists.into_iter().map(|(steps, _)| steps).collect(),
            slots,
            peak_live_bytes: header.peak_live_bytes,
        })
    }

    /// Of a round.
    fn steps(&self) -> u64 {
        self.threads.iter().map(|steps| steps.len() as u64).sum()
    }

    /// What the replay has for itself.
    fn own_bytes(&self) -> usize {
        self.slots.bytes() + self.threads.iter().map(Table::bytes).sum::<usize>()
    }

    /// Does all steps, so many times. The rounds of all threads begin together.
    fn run(&self, rounds: u64) {
        let [first, others @ ..] = &self.threads[..] else {
            return;
        };
        let begin = Barrier::new(self.threads.len());
        let replay = |steps: &[Step]| {
            for _ in 0..rounds {
                begin.wait();
                for step in steps {
                    // SAFETY: the step is the plan's, and the thread does its steps in their order.
                    unsafe { step.perform(&self.slots[step.object as usize]) };
                }
            }
        };
        thread::scope(|scope| {
            for steps in others {
                scope.spawn(move || replay(steps));
            }
            replay(first);
        });
    }
}

impl Id {
    /// The id's next step.
    fn step(&mut self, event: &Event) -> Step {
        let (kind, size) = match event.action {
            Action::Alloc {
                size,
                align_log2,
                zeroed,
            } => {
                self.align_log2 = align_log2;
                (
                    if zeroed {
                        Kind::AllocZeroed
                    } else {
                        Kind::Alloc
                    },
                    size,
                )
            }
            Action::Realloc { size } => (Kind::Realloc, size),
            Action::Free => (Kind::Free, 0),
        };
        self.live = event.action != Action::Free;
        let turn = self.turn;
        self.turn += 1;
        Step {
            object: event.object,
            turn,
            size,
            kind,
            align_log2: self.align_log2,
            last: self.turn == self.steps,
        }
    }
}

/// The machine's memory.
fn memory_bytes() -> u64 {
    // SAFETY: `sysconf` has no preconditions.
    let [pages, page_bytes] =
        [libc::_SC_PHYS_PAGES, libc::_SC_PAGESIZE].map(|name| unsafe { libc::sysconf(name) });
    pages.max(0) as u64 * page_bytes.max(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanmalloc_rate::trace::Writer;

    const ALLOC: Action = Action::Alloc {
        size: 24,
        align_log2: 3,
        zeroed: false,
    };

    /// The plan of a trace of these events.
    fn plan(events: &[(u32, u32, Action)]) -> Plan {
        let mut writer = Writer::new();
        for &(thread, object, action) in events {
            writer
                .push(Event {
                    thread,
                    object,
                    action,
                })
                .expect("possible");
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), writer.into_bytes()).expect("written");
        Plan::new(&Trace::open(file.path()).expect("a trace")).expect("a plan")
    }

    #[test]
    fn objects_that_are_left_are_freed_in_each_round() {
        let zeroed = Action::Alloc {
            size: 100_000,
            align_log2: 12,
            zeroed: true,
        };
        let plan = plan(&[
            (0, 0, ALLOC),
            (0, 1, zeroed),
            (0, 0, Action::Realloc { size: 9000 }),
        ]);
        assert_eq!(plan.steps(), 5);
        plan.run(3);
        assert!(
            plan.slots
                .iter()
                .all(|slot| slot.turn.load(Ordering::Relaxed) == 0)
        );
    }

    #[test]
    fn threads_hand_over_objects_in_the_order_of_the_trace() {
        let mut events = Vec::new();
        for turn in 0..300 {
            let object = turn % 7;
            events.push((turn % 3, object, ALLOC));
            events.push((
                (turn + 1) % 3,
                object,
                Action::Realloc {
                    size: 1 + turn * 50,
                },
            ));
            events.push(((turn + 2) % 3, object, Action::Free));
        }
        let plan = plan(&events);
        assert_eq!(plan.threads.len(), 3);
        plan.run(20);
        assert!(
            plan.slots
                .iter()
                .all(|slot| slot.turn.load(Ordering::Relaxed) == 0)
        );
    }
}
