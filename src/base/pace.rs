//! How much time work may take: a share of one CPU. Time is credited as it passes and spent as the work
//! takes it. Pure: the clock is the caller's, nanoseconds since any moment.

/// Most time that is saved up for later, unless something else is said, so that an idle process gets rid of a
/// peak at once when it is asked to.
pub(crate) const CREDIT_MAX_NS: i64 = 100_000_000;

/// How much time may be spent: a share of one CPU, one part of `DIVISOR` of the time that passes, of which up to
/// `CREDIT_MAX` nanoseconds are saved up. All-zero bytes are a fresh one, so that statics that have one take no
/// room in the program's file.
pub(crate) struct Pace<const DIVISOR: u64, const CREDIT_MAX: i64 = CREDIT_MAX_NS> {
    /// Time that may be spent; below zero after work that took longer.
    credit_ns: i64,
    /// When time was credited last.
    credited_at_ns: u64,
}

impl<const DIVISOR: u64, const CREDIT_MAX: i64> Pace<DIVISOR, CREDIT_MAX> {
    pub(crate) const fn new() -> Self {
        Self {
            credit_ns: 0,
            credited_at_ns: 0,
        }
    }

    /// Credits the time since the last call.
    pub(crate) fn earn(&mut self, now_ns: u64) {
        let earned = now_ns.saturating_sub(self.credited_at_ns) / DIVISOR;
        self.credit_ns = self
            .credit_ns
            .saturating_add_unsigned(earned)
            .min(CREDIT_MAX);
        self.credited_at_ns = now_ns.max(self.credited_at_ns);
    }

    /// Whether there is time left.
    pub(crate) fn has_time(&self) -> bool {
        self.credit_ns > 0
    }

    /// Accounts for work that took so long.
    pub(crate) fn spend(&mut self, ns: u64) {
        self.credit_ns = self.credit_ns.saturating_sub_unsigned(ns);
    }
}
