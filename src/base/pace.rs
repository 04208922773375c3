//! How much time work may take: a share of one CPU. Time is credited as it passes and spent as the work
//! takes it. Pure: the clock is the caller's, nanoseconds since any moment.

/// Most time that is saved up for later, unless something else is said, so that an idle process gets rid of a
/// peak at once when it is asked to.
pub(crate) const CREDIT_MAX_NS: i64 = 100_000_000;

/// How much time may be spent: a share of one CPU.
pub(crate) struct Pace {
    /// One part of so many of the time that passes is credited.
    divisor: u64,
    /// Time that may be spent; below zero after work that took longer.
    credit_ns: i64,
    /// Most time that is saved up.
    credit_max_ns: i64,
    /// When time was credited last.
    credited_at_ns: u64,
}

impl Pace {
    /// One part of `divisor` of the time.
    pub(crate) const fn new(divisor: u64) -> Self {
        Self::with_most(divisor, CREDIT_MAX_NS)
    }

    /// One part of `divisor` of the time, of which so much may be saved up.
    pub(crate) const fn with_most(divisor: u64, credit_max_ns: i64) -> Self {
        Self {
            divisor,
            credit_ns: 0,
            credit_max_ns,
            credited_at_ns: 0,
        }
    }

    /// Credits the time since the last call.
    pub(crate) fn earn(&mut self, now_ns: u64) {
        let earned = now_ns.saturating_sub(self.credited_at_ns) / self.divisor;
        self.credit_ns = self
            .credit_ns
            .saturating_add_unsigned(earned)
            .min(self.credit_max_ns);
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
