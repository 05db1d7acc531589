//! What a condition may come to, as far as an index tells: some of true, false, and that it cannot be evaluated.

use proxy_journal::index::Judged;

/// A set of what may come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct May(u8);

impl May {
    /// Nothing: where there is nothing that anything could come of.
    pub(super) const NOTHING: May = May(0);
    pub(super) const FALSE: May = May(1);
    pub(super) const TRUE: May = May(2);
    pub(super) const FAILS: May = May(4);
    pub(super) const ANY: May = May(7);

    /// What came out.
    pub(super) fn of(result: Option<bool>) -> May {
        match result {
            Some(true) => May::TRUE,
            Some(false) => May::FALSE,
            None => May::FAILS,
        }
    }

    /// This, or that.
    pub(super) fn or_else(self, other: May) -> May {
        May(self.0 | other.0)
    }

    fn may(self, other: May) -> bool {
        self.0 & other.0 != 0
    }

    fn when(self, may: bool) -> May {
        if may { self } else { May::NOTHING }
    }

    /// `!`
    pub(super) fn not(self) -> May {
        let swapped = May::TRUE.when(self.may(May::FALSE)).or_else(May::FALSE.when(self.may(May::TRUE)));
        swapped.or_else(May::FAILS.when(self.may(May::FAILS)))
    }

    /// `&&`, in which false comes before what cannot be evaluated, on either side.
    pub(super) fn and(self, other: May) -> May {
        let goes_on = May::TRUE.or_else(May::FAILS);
        let fails =
            (self.may(May::FAILS) && other.may(goes_on)) || (other.may(May::FAILS) && self.may(goes_on));
        May::FALSE
            .when(self.may(May::FALSE) || other.may(May::FALSE))
            .or_else(May::TRUE.when(self.may(May::TRUE) && other.may(May::TRUE)))
            .or_else(May::FAILS.when(fails))
    }

    /// `||`
    pub(super) fn or(self, other: May) -> May {
        self.not().and(other.not()).not()
    }

    /// `? :`
    pub(super) fn choose(self, then: May, otherwise: May) -> May {
        let then = if self.may(May::TRUE) { then } else { May::NOTHING };
        let otherwise = if self.may(May::FALSE) { otherwise } else { May::NOTHING };
        then.or_else(otherwise).or_else(May::FAILS.when(self.may(May::FAILS)))
    }

    /// Of a line: one that cannot be evaluated is read as well, to be counted.
    pub(super) fn judged(self) -> Judged {
        match self {
            May::FALSE => Judged::No,
            May::TRUE => Judged::Yes,
            _ => Judged::Perhaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Option<bool>; 3] = [Some(true), Some(false), None];

    fn sets() -> impl Iterator<Item = (May, Vec<Option<bool>>)> {
        (1..8_u8).map(|set| (May(set), ALL.into_iter().filter(|one| May::of(*one).0 & set != 0).collect()))
    }

    fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
        if a == Some(false) || b == Some(false) { Some(false) } else { Some(a? && b?) }
    }

    #[test]
    fn what_may_come_out_is_what_comes_out_of_any_of_what_may_go_in() {
        for (a, in_a) in sets() {
            let not = in_a.iter().fold(May::NOTHING, |all, one| all.or_else(May::of(one.map(|it| !it))));
            assert_eq!(a.not(), not);
            for (b, in_b) in sets() {
                let (mut both, mut either) = (May::NOTHING, May::NOTHING);
                for (one, other) in in_a.iter().flat_map(|one| in_b.iter().map(move |other| (*one, *other))) {
                    both = both.or_else(May::of(and(one, other)));
                    let not = |it: Option<bool>| it.map(|it| !it);
                    either = either.or_else(May::of(not(and(not(one), not(other)))));
                }
                assert_eq!((a.and(b), a.or(b)), (both, either), "{a:?} {b:?}");
                for (c, in_c) in sets() {
                    let chosen = in_a.iter().fold(May::NOTHING, |all, one| {
                        let of = |them: &[Option<bool>]| {
                            them.iter().fold(May::NOTHING, |all, one| all.or_else(May::of(*one)))
                        };
                        all.or_else(match one {
                            Some(true) => of(&in_b),
                            Some(false) => of(&in_c),
                            None => May::FAILS,
                        })
                    });
                    assert_eq!(a.choose(b, c), chosen);
                }
            }
        }
    }
}
