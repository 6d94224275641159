//! The retry policy: computes the delay before the next attempt. Pure arithmetic, without a clock.

use std::time::Duration;

use crate::event::{Invalid, Problem};

/// Exponential backoff with a cap and jitter.
///
/// The delay after failed attempt `n` (from 1) is `initial_delay × backoff_factor^(n-1)`, at most `max_delay`, and then
/// varied at random by up to `± jitter` of itself. A delivery has `max_retries + 1` attempts in all.
///
/// ```
/// use eventbroker::RetryPolicy;
/// use std::time::Duration;
///
/// let policy = RetryPolicy::default(); // 3 retries: 1 s, 2 s, 4 s, each ± 10 %
/// assert_eq!(policy.nominal_delay(3), Duration::from_secs(4));
/// assert_eq!(RetryPolicy::none().max_retries, 0);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Retries after the first attempt. Default 3; 0 disables retries.
    pub max_retries: u32,
    /// Delay before the first retry. Default 1 s; at most `max_delay`.
    pub initial_delay: Duration,
    /// The longest delay before jitter. Default 30 s; at most 7 days.
    pub max_delay: Duration,
    /// Growth per retry. Default 2.0; 1.0 to 100.0.
    pub backoff_factor: f64,
    /// Random variation of each delay, as a share of it. Default 0.1; 0.0 to 1.0.
    pub jitter: f64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 3,
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(30),
            backoff_factor: 2.0,
            jitter: 0.1,
        }
    }
}

impl RetryPolicy {
    /// The largest `max_delay`.
    pub const MAX_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);

    /// No retries: the first failure is final.
    pub fn none() -> Self {
        Self { max_retries: 0, ..Self::default() }
    }

    /// `max_retries` retries, each after the same `delay`, without jitter.
    pub fn fixed(max_retries: u32, delay: Duration) -> Self {
        Self { max_retries, initial_delay: delay, max_delay: delay, backoff_factor: 1.0, jitter: 0.0 }
    }

    /// The delay after failed attempt `attempt` (from 1), before jitter.
    pub fn nominal_delay(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial_delay.as_secs_f64() * self.backoff_factor.powi(exponent);
        if seconds < self.max_delay.as_secs_f64() { Duration::from_secs_f64(seconds) } else { self.max_delay }
    }

    /// The delay after failed attempt `attempt`, or `None` if no attempts are left. `random` is uniform in 0..1.
    /// `requested` is the delay that the handler asked for: it replaces the computed one, without jitter.
    pub(crate) fn next_delay(&self, attempt: u32, requested: Option<Duration>, random: f64) -> Option<Duration> {
        if attempt > self.max_retries {
            return None;
        }
        Some(match requested {
            Some(delay) => delay.min(Self::MAX_DELAY),
            None => self.nominal_delay(attempt).mul_f64((1.0 + self.jitter * (2.0 * random - 1.0)).max(0.0)),
        })
    }

    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let bad = |text: String| Err(Invalid::new("retry_policy", Problem::OutOfBounds(text)));
        if self.max_delay > Self::MAX_DELAY {
            return bad(format!("max_delay is {:?}, at most {:?} is allowed", self.max_delay, Self::MAX_DELAY));
        }
        if self.initial_delay > self.max_delay {
            return bad(format!("initial_delay {:?} is above max_delay {:?}", self.initial_delay, self.max_delay));
        }
        if !(1.0..=100.0).contains(&self.backoff_factor) {
            return bad(format!("backoff_factor is {}, 1.0 to 100.0 is allowed", self.backoff_factor));
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return bad(format!("jitter is {}, 0.0 to 1.0 is allowed", self.jitter));
        }
        Ok(())
    }
}
