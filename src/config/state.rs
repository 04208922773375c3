//! What is in effect: three words and a number, read by anyone without a lock.
//!
//! An option has a value and the *layer* that said it. What one layer said stays until the same or a
//! higher one says something else; so the order in which the layers come does not matter, and neither
//! does which thread they come from. Value and layer are in one atomic word, which makes that exact
//! without a lock; a child of `fork` therefore finds no lock that somebody has.
//!
//! All accesses are relaxed: a word publishes nothing but itself.

use super::options::{
    Choice, DEFAULT, Form, GUARDED_DEFAULT, OPTIONS, PROFILE_RATE_DEFAULT, Report,
};
use super::secure::Secure;
use super::triggers::Triggers;
use super::values::{Config, HugePages, MemoryLimit, Release, ReleaseBy};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Who said a value, from the weakest to the strongest. Zero stands for nobody: a default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// The program, where it was compiled. The first to speak is heard.
    Program = 1,
    /// The environment.
    Environment,
    /// The program, by a call. The last to speak is heard.
    Call,
}

/// Bits of a choice: its value below, its layer above.
const FIELD_BITS: u32 = 4;
const VALUE_BITS: u32 = 2;
const FIELD_MASK: u64 = (1 << FIELD_BITS) - 1;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;

/// Where the limit's layer begins; below is the limit, in bytes, or one of two marks.
const LIMIT_BITS: u32 = 62;
const LIMIT_MASK: u64 = (1 << LIMIT_BITS) - 1;
const NO_LIMIT: u64 = LIMIT_MASK;
const AUTO_LIMIT: u64 = LIMIT_MASK - 1;

/// Where the layer of the secure mode begins.
const SECURE_BITS: u32 = u16::BITS;

const _: () = assert!(CHOICES_END <= u64::BITS && DEFAULT_LIMIT == NO_LIMIT);
const CHOICES_END: u32 = (Choice::Help as u32 + 1) * FIELD_BITS;
const DEFAULT_LIMIT: u64 = encode(DEFAULT.memory_limit);

/// Where the layer of the guarded objects' rate begins.
const GUARDED_BITS: u32 = u32::BITS;

/// What is in effect.
pub(super) struct State {
    /// A field for each choice. **Any thread; atomic.**
    choices: AtomicU64,
    /// **Any thread; atomic.**
    limit: AtomicU64,
    /// What `auto` was found to be. **Any thread; atomic.** Written before `limit` says `auto`; who
    /// sees that the other way round finds no limit for a moment.
    auto_bytes: AtomicUsize,
    /// What the secure mode does, and above that the layer. **Any thread; atomic.**
    secure: AtomicU32,
    /// Of how many slow calls one guards its object, and the layer that says so. **Any thread; atomic.**
    guarded: AtomicU64,
    /// What only the environment says: when each report is made, and the profile's rate.
    /// **Any thread; atomic.**
    triggers: [AtomicU64; 2],
    profile_rate: AtomicUsize,
}

impl State {
    pub(super) const fn new() -> Self {
        let mut choices = 0;
        let mut index = 0;
        while index < OPTIONS.len() {
            if let Form::Words(choice, _, default) = OPTIONS[index].form {
                choices |= (default as u64) << choice.shift();
            }
            index += 1;
        }
        Self {
            choices: AtomicU64::new(choices),
            limit: AtomicU64::new(DEFAULT_LIMIT),
            auto_bytes: AtomicUsize::new(usize::MAX),
            secure: AtomicU32::new(DEFAULT.secure.bits() as u32),
            guarded: AtomicU64::new(GUARDED_DEFAULT as u64),
            triggers: [const { AtomicU64::new(0) }; 2],
            profile_rate: AtomicUsize::new(PROFILE_RATE_DEFAULT),
        }
    }

    /// The value of a choice: the index of its word.
    #[inline]
    pub(super) fn chosen(&self, choice: Choice) -> u8 {
        value(self.choices.load(Relaxed), choice)
    }

    #[inline]
    pub(super) fn limit_bytes(&self) -> usize {
        match self.limit.load(Relaxed) & LIMIT_MASK {
            NO_LIMIT => usize::MAX,
            AUTO_LIMIT => self.auto_bytes.load(Relaxed),
            bytes => bytes as usize,
        }
    }

    pub(super) fn limit(&self) -> MemoryLimit {
        match self.limit.load(Relaxed) & LIMIT_MASK {
            NO_LIMIT => MemoryLimit::None,
            AUTO_LIMIT => MemoryLimit::Auto,
            bytes => MemoryLimit::Bytes(bytes as usize),
        }
    }

    pub(super) fn config(&self) -> Config {
        let choices = self.choices.load(Relaxed);
        Config {
            background: value(choices, Choice::Background) != 0,
            release: release(value(choices, Choice::Release)),
            release_by: release_by(value(choices, Choice::ReleaseBy)),
            memory_limit: self.limit(),
            hard_limit: value(choices, Choice::HardLimit) != 0,
            huge_pages: huge_pages(value(choices, Choice::HugePages)),
            secure: self.secure(),
            guarded: self.guarded(),
        }
    }

    /// What the secure mode does.
    pub(super) fn secure(&self) -> Secure {
        Secure::from_bits(self.secure.load(Relaxed) as u16)
    }

    /// `layer` says what the secure mode does.
    pub(super) fn set_secure(&self, secure: Secure, layer: Layer) {
        let word = (layer as u32) << SECURE_BITS | u32::from(secure.bits());
        let _ = self.secure.fetch_update(Relaxed, Relaxed, |there| {
            layer
                .replaces(u64::from(there >> SECURE_BITS))
                .then_some(word)
        });
    }

    /// `layer` says that a choice is `value`.
    pub(super) fn choose(&self, choice: Choice, value: u8, layer: Layer) {
        self.update(|choices| put(choices, choice, value, layer));
    }

    /// `layer` says what the limit is, and how many bytes `auto` is.
    pub(super) fn set_limit(
        &self,
        limit: MemoryLimit,
        layer: Layer,
        auto_bytes: impl FnOnce() -> usize,
    ) {
        if limit == MemoryLimit::Auto {
            self.auto_bytes.store(auto_bytes(), Relaxed);
        }
        let word = (layer as u64) << LIMIT_BITS | encode(limit);
        let _ = self.limit.fetch_update(Relaxed, Relaxed, |there| {
            layer.replaces(there >> LIMIT_BITS).then_some(word)
        });
    }

    /// Of how many slow calls one guards its object; zero for none.
    #[inline]
    pub(super) fn guarded(&self) -> u32 {
        self.guarded.load(Relaxed) as u32
    }

    /// `layer` says of how many.
    pub(super) fn set_guarded(&self, one_in: u32, layer: Layer) {
        let word = (layer as u64) << GUARDED_BITS | u64::from(one_in);
        let _ = self.guarded.fetch_update(Relaxed, Relaxed, |there| {
            layer.replaces(there >> GUARDED_BITS).then_some(word)
        });
    }

    /// When a report is made.
    pub(super) fn triggers(&self, report: Report) -> Triggers {
        Triggers::decode(self.triggers[report as usize].load(Relaxed))
    }

    pub(super) fn set_triggers(&self, report: Report, triggers: Triggers) {
        self.triggers[report as usize].store(triggers.encode(), Relaxed);
    }

    /// Bytes between two samples of the profile; zero for no samples.
    pub(super) fn profile_rate(&self) -> usize {
        self.profile_rate.load(Relaxed)
    }

    pub(super) fn set_profile_rate(&self, bytes: usize) {
        self.profile_rate.store(bytes, Relaxed);
    }

    /// `layer` says all that a `Config` has.
    pub(super) fn set(&self, config: Config, layer: Layer, auto_bytes: impl FnOnce() -> usize) {
        self.set_limit(config.memory_limit, layer, auto_bytes);
        self.set_secure(config.secure, layer);
        self.set_guarded(config.guarded, layer);
        let values = [
            (Choice::Background, config.background as u8),
            (Choice::Release, config.release as u8),
            (Choice::ReleaseBy, config.release_by as u8),
            (Choice::HardLimit, config.hard_limit as u8),
            (Choice::HugePages, config.huge_pages as u8),
        ];
        self.update(|choices| {
            values.iter().fold(choices, |choices, (choice, value)| {
                put(choices, *choice, *value, layer)
            })
        });
    }

    fn update(&self, change: impl Fn(u64) -> u64) {
        let change = |choices| Some(change(choices));
        let _ = self.choices.fetch_update(Relaxed, Relaxed, change);
    }
}

impl Choice {
    const fn shift(self) -> u32 {
        self as u32 * FIELD_BITS
    }
}

impl Layer {
    /// Whether what this layer says takes the place of what that one said.
    fn replaces(self, there: u64) -> bool {
        self as u64 > there || self == Self::Call
    }
}

#[inline]
fn value(choices: u64, choice: Choice) -> u8 {
    (choices >> choice.shift() & VALUE_MASK) as u8
}

/// `choices` after `layer` has said that one of them is `value`.
fn put(choices: u64, choice: Choice, value: u8, layer: Layer) -> u64 {
    let there = choices >> choice.shift() & FIELD_MASK;
    if !layer.replaces(there >> VALUE_BITS) {
        return choices;
    }
    let field = (layer as u64) << VALUE_BITS | u64::from(value) & VALUE_MASK;
    choices & !(FIELD_MASK << choice.shift()) | field << choice.shift()
}

const fn encode(limit: MemoryLimit) -> u64 {
    match limit {
        MemoryLimit::Auto => AUTO_LIMIT,
        MemoryLimit::Bytes(bytes) if (bytes as u64) < AUTO_LIMIT => bytes as u64,
        MemoryLimit::None | MemoryLimit::Bytes(_) => NO_LIMIT,
    }
}

#[inline]
pub(super) fn release(value: u8) -> Release {
    match value {
        0 => Release::Lazily,
        1 => Release::AtOnce,
        _ => Release::Never,
    }
}

#[inline]
pub(super) fn release_by(value: u8) -> ReleaseBy {
    match value {
        0 => ReleaseBy::DontNeed,
        _ => ReleaseBy::Free,
    }
}

#[inline]
pub(super) fn huge_pages(value: u8) -> HugePages {
    match value {
        0 => HugePages::Auto,
        1 => HugePages::Always,
        _ => HugePages::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Config = Config {
        background: !DEFAULT.background,
        release: Release::Never,
        release_by: ReleaseBy::Free,
        memory_limit: MemoryLimit::Bytes(512 << 20),
        hard_limit: true,
        huge_pages: HugePages::Always,
        secure: Secure::FILL,
        guarded: 7,
    };

    fn no_auto() -> usize {
        panic!("nobody has chosen auto")
    }

    #[test]
    fn defaults_hold_at_the_start() {
        let state = State::new();
        assert_eq!(state.config(), Config::new());
        assert_eq!(state.limit_bytes(), usize::MAX);
        assert_eq!(state.chosen(Choice::Foreign), 0);
    }

    #[test]
    fn config_is_kept_whole_by_each_layer() {
        for layer in [Layer::Program, Layer::Environment, Layer::Call] {
            let state = State::new();
            state.set(OTHER, layer, no_auto);
            assert_eq!(state.config(), OTHER);
            assert_eq!(state.limit_bytes(), 512 << 20);
        }
    }

    #[test]
    fn environment_goes_over_the_program_and_a_call_over_both_in_any_order() {
        let says = |state: &State, layer| match layer {
            Layer::Program => state.set(OTHER, layer, no_auto),
            Layer::Environment => {
                state.choose(Choice::Release, Release::AtOnce as u8, layer);
                state.set_limit(MemoryLimit::None, layer, no_auto);
            }
            Layer::Call => state.set_limit(MemoryLimit::Bytes(1), layer, no_auto),
        };
        let (program, environment, call) = (Layer::Program, Layer::Environment, Layer::Call);
        for order in [[program, environment], [environment, program]] {
            let state = State::new();
            order.iter().for_each(|layer| says(&state, *layer));
            let expected = OTHER
                .release(Release::AtOnce)
                .memory_limit(MemoryLimit::None);
            assert_eq!(state.config(), expected);
        }
        for order in [
            [program, environment, call],
            [call, environment, program],
            [environment, call, program],
        ] {
            let state = State::new();
            order.iter().for_each(|layer| says(&state, *layer));
            let expected = OTHER
                .release(Release::AtOnce)
                .memory_limit(MemoryLimit::Bytes(1));
            assert_eq!(state.config(), expected);
        }
    }

    #[test]
    fn first_program_and_last_call_are_heard() {
        let state = State::new();
        state.set(OTHER, Layer::Program, no_auto);
        state.set(Config::new(), Layer::Program, no_auto);
        assert_eq!(state.config(), OTHER);
        state.set(Config::new(), Layer::Call, no_auto);
        assert_eq!(state.config(), Config::new());
        state.set(OTHER, Layer::Call, no_auto);
        assert_eq!(state.config(), OTHER);
    }

    #[test]
    fn choice_changes_nothing_but_itself() {
        let state = State::new();
        state.choose(Choice::Count, 1, Layer::Environment);
        state.choose(Choice::Help, 1, Layer::Environment);
        state.choose(Choice::Count, 0, Layer::Call);
        assert_eq!(state.chosen(Choice::Help), 1);
        assert_eq!(state.chosen(Choice::Count), 0);
        assert_eq!(state.config(), Config::new());
    }

    #[test]
    fn reports_have_triggers_of_their_own() {
        let state = State::new();
        assert_eq!(state.triggers(Report::Stats), Triggers::default());
        let exit = Triggers::parse(b"exit").unwrap();
        let often = Triggers::parse(b"SIGUSR1,7s").unwrap();
        state.set_triggers(Report::Stats, exit);
        state.set_triggers(Report::Profile, often);
        assert_eq!(state.triggers(Report::Stats), exit);
        assert_eq!(state.triggers(Report::Profile), often);
        assert_eq!(state.profile_rate(), PROFILE_RATE_DEFAULT);
        state.set_profile_rate(0);
        assert_eq!(state.profile_rate(), 0);
        assert_eq!(state.config(), Config::new());
    }

    #[test]
    fn auto_is_the_number_that_was_found() {
        let state = State::new();
        state.set_limit(MemoryLimit::Auto, Layer::Environment, || 77);
        assert_eq!(state.limit(), MemoryLimit::Auto);
        assert_eq!(state.limit_bytes(), 77);
        state.set_limit(MemoryLimit::Auto, Layer::Call, || usize::MAX);
        assert_eq!(state.limit(), MemoryLimit::Auto);
        assert_eq!(state.limit_bytes(), usize::MAX);
    }

    #[test]
    fn absurd_limit_is_none() {
        let state = State::new();
        for bytes in [usize::MAX, usize::MAX >> 1, (1 << 62) - 2] {
            state.set_limit(MemoryLimit::Bytes(0), Layer::Call, no_auto);
            assert_eq!(state.limit_bytes(), 0);
            state.set_limit(MemoryLimit::Bytes(bytes), Layer::Call, no_auto);
            assert_eq!(state.limit(), MemoryLimit::None, "{bytes}");
            assert_eq!(state.limit_bytes(), usize::MAX);
        }
        state.set_limit(MemoryLimit::Bytes((1 << 62) - 3), Layer::Call, no_auto);
        assert_eq!(state.limit_bytes(), (1 << 62) - 3);
    }
}
