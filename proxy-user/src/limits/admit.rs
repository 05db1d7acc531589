//! One call, before it is made: all limits that apply, at once.
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use proxy_policy::{Bound, Limit, Place, Spanned};
use tokio::sync::{AcquireError, OwnedSemaphorePermit};

use super::{
    gcra::{Gcra, Turn},
    quota::Quota,
    scope::{Cell, Scope},
};

/// A call that is over a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Whose limit: `identity bot`.
    pub whose: String,
    /// The limit.
    pub limit: Limit,
    /// Where the policy says it.
    pub place: Place,
    /// After which time it is worth to try again.
    pub retry_after: Duration,
}

impl Exceeded {
    /// Whose, and which, as [`Scope::names`] has it.
    #[must_use]
    pub fn name(&self) -> String {
        super::scope::named(&self.whose, &self.limit)
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { whose, limit, .. } = self;
        write!(f, "the limit \"{}\" of {whose} is used up", limit.as_str())?;
        match limit.bound() {
            Bound::AtOnce(_) => write!(f, "; it is free again when a call ends"),
            _ => write!(f, "; try again in {} s", seconds(self.retry_after)),
        }
    }
}

/// Whole seconds, rounded up, at least one.
#[must_use]
pub fn seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

/// What a call holds while it goes on.
#[derive(Debug, Default)]
#[must_use]
pub struct Pass {
    _places: Vec<OwnedSemaphorePermit>,
    bytes: Vec<Arc<Quota>>,
}

impl Pass {
    /// The call is over: so many bytes went over the wire, both ways together.
    pub fn end(self, bytes: u64) {
        self.count(bytes);
    }

    fn count(&self, bytes: u64) {
        if bytes > 0 && !self.bytes.is_empty() {
            let now = SystemTime::now();
            self.bytes.iter().for_each(|quota| quota.add(bytes, now));
        }
    }

    /// Whether anybody wants bytes counted.
    #[must_use]
    pub fn counts_bytes(&self) -> bool {
        !self.bytes.is_empty()
    }
}

/// Asks for one call.
#[derive(Debug)]
pub struct Admission<'a> {
    scopes: &'a [&'a Arc<Scope>],
    taken: Vec<Taken<'a>>,
    pass: Pass,
}

/// Something that must be given back when the call is not made.
#[derive(Debug)]
enum Taken<'a> {
    Rate(&'a Gcra, Turn),
    Calls(&'a Quota, SystemTime),
}

impl<'a> Admission<'a> {
    /// Waits at most as long as the limits themselves say. `Ok` has the time that it waited.
    ///
    /// # Errors
    /// A limit is used up, and its turn is too far away.
    pub async fn ask(scopes: &'a [&'a Arc<Scope>]) -> Result<(Pass, Duration), Exceeded> {
        if scopes.is_empty() {
            return Ok((Pass::default(), Duration::ZERO));
        }
        let mut admission = Self { scopes, taken: Vec::new(), pass: Pass::default() };
        let began = Instant::now();
        // Places first: they may take time, and a turn that was taken before would be over by then.
        admission.places(began).await?;
        let wait = admission.turns(began)?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        admission.taken.clear();
        Ok((std::mem::take(&mut admission.pass), began.elapsed()))
    }

    async fn places(&mut self, began: Instant) -> Result<(), Exceeded> {
        for (scope, limit, cell) in each(self.scopes) {
            let Cell::AtOnce(places) = cell else { continue };
            let patience = scope.wait.saturating_sub(began.elapsed());
            let place = match Arc::clone(places).try_acquire_owned() {
                Ok(place) => Ok(place),
                Err(_) if patience.is_zero() => Err(()),
                Err(_) => {
                    let wait = tokio::time::timeout(patience, Arc::clone(places).acquire_owned());
                    wait.await
                        .map_err(|_| ())
                        .and_then(|place: Result<_, AcquireError>| place.map_err(|_| ()))
                }
            };
            let Ok(place) = place else { return Err(exceeded(scope, limit, Duration::from_secs(1))) };
            self.pass._places.push(place);
        }
        Ok(())
    }

    /// Takes a turn of every rate and quota, and says how long until the last of them.
    fn turns(&mut self, began: Instant) -> Result<Duration, Exceeded> {
        let (now, mut longest) = (SystemTime::now(), Duration::ZERO);
        for (scope, limit, cell) in each(self.scopes) {
            let answer = match cell {
                Cell::AtOnce(_) => Ok(Duration::ZERO),
                Cell::Rate(rate) => {
                    let patience = scope.wait.saturating_sub(began.elapsed());
                    rate.take(scope.clock.elapsed(), patience).map(|turn| {
                        let wait = turn.wait;
                        self.taken.push(Taken::Rate(rate, turn));
                        wait
                    })
                }
                Cell::Calls(quota, most) => {
                    let answer = quota.take(1, *most, now).map(|()| Duration::ZERO);
                    if answer.is_ok() {
                        self.taken.push(Taken::Calls(quota, now));
                    }
                    answer
                }
                Cell::Bytes(quota, most) => {
                    self.pass.bytes.push(Arc::clone(quota));
                    quota.check(*most, now).map(|()| Duration::ZERO)
                }
            };
            longest = longest.max(answer.map_err(|after| exceeded(scope, limit, after))?);
        }
        Ok(longest)
    }
}

/// A call that was refused, or whose client went away while it waited, takes nothing.
impl Drop for Admission<'_> {
    fn drop(&mut self) {
        for taken in &self.taken {
            match taken {
                Taken::Rate(rate, turn) => rate.give_back(turn),
                Taken::Calls(quota, at) => quota.give_back(1, *at),
            }
        }
    }
}

fn each<'a>(scopes: &'a [&'a Arc<Scope>]) -> impl Iterator<Item = (&'a Scope, &'a Spanned<Limit>, &'a Cell)> {
    scopes.iter().flat_map(|scope| scope.cells.iter().map(move |(limit, cell)| (scope.as_ref(), limit, cell)))
}

fn exceeded(scope: &Scope, limit: &Spanned<Limit>, retry_after: Duration) -> Exceeded {
    Exceeded { whose: scope.whose.clone(), limit: limit.value.clone(), place: limit.place, retry_after }
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
