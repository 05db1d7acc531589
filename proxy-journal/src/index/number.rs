//! Numbers in less room: exact while they are small, then rounded down.

use std::ops::RangeInclusive;

/// In 16 bits: exact below 2048, then to one part in a thousand.
pub fn short(number: u64) -> u16 {
    u16::try_from(squeeze(number, 10)).unwrap_or(u16::MAX)
}

/// The least number that [`short`] makes this of.
pub fn of_short(short: u16) -> u64 {
    expand(u64::from(short), 10)
}

/// All numbers that [`short`] makes this of.
pub fn within_short(short: u16) -> RangeInclusive<u64> {
    between(of_short(short), short.checked_add(1).map(of_short))
}

/// In 32 bits: exact below 2^27, then to one part in sixty million.
pub fn long(number: u64) -> u32 {
    u32::try_from(squeeze(number, 26)).unwrap_or(u32::MAX)
}

/// The least number that [`long`] makes this of.
pub fn of_long(long: u32) -> u64 {
    expand(u64::from(long), 26)
}

/// All numbers that [`long`] makes this of.
pub fn within_long(long: u32) -> RangeInclusive<u64> {
    between(of_long(long), long.checked_add(1).map(of_long))
}

/// Up to the next number, if there is one.
fn between(first: u64, next: Option<u64>) -> RangeInclusive<u64> {
    first..=next.map_or(u64::MAX, |next| next.saturating_sub(1).max(first))
}

/// An exponent, and `bits` bits after the leading one.
fn squeeze(number: u64, bits: u32) -> u64 {
    let shift = (u64::BITS - number.leading_zeros()).saturating_sub(bits + 1);
    (u64::from(shift) << bits) + (number >> shift)
}

fn expand(squeezed: u64, bits: u32) -> u64 {
    let exponent = squeezed >> bits;
    if exponent <= 1 {
        return squeezed;
    }
    let shift = u32::try_from(exponent - 1).unwrap_or(u32::MAX);
    let mantissa = (squeezed & ((1 << bits) - 1)) | (1 << bits);
    if shift > mantissa.leading_zeros() {
        return u64::MAX;
    }
    mantissa << shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_is_rounded_down_by_less_than_a_thousandth_and_keeps_its_order(a in any::<u64>(), by in 0_u32..64, b in any::<u64>()) {
            let a = a >> by;
            let back = of_short(short(a));
            prop_assert!(back <= a && a - back <= a / 1024, "{a} {back}");
            prop_assert_eq!(short(back), short(a));
            prop_assert!((a <= b) == (short(a) <= short(b)) || short(a) == short(b));
            let back = of_long(long(a));
            prop_assert!(back <= a && a - back <= a >> 26, "{a} {back}");
            prop_assert!(within_short(short(a)).contains(&a) && within_long(long(a)).contains(&a), "{a}");
            if a < 1 << 27 { prop_assert_eq!(back, a); }
            if a < 2048 { prop_assert_eq!(of_short(short(a)), a); }
        }

        #[test]
        fn no_bytes_are_a_number_that_cannot_be(any in any::<u32>()) {
            for within in [within_long(any), within_short(any as u16)] {
                prop_assert!(within.start() <= within.end(), "{within:?}");
            }
        }
    }
}
