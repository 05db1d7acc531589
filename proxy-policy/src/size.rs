//! Amounts of bytes as people write them in files: `"64 MiB"`, `"1 GiB"`, `"4096"`.

/// Reads `"64 MiB"` and its like; the blank may be left out.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
        "" | "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        "TiB" => Some(40),
        _ => None,
    };
    let bytes =
        number.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| {
        format!(
            "{text:?} is not an amount of bytes; write a number and a unit, such as \"64 MiB\" or \"1 GiB\""
        )
    })
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn an_amount_is_a_number_and_a_unit_of_1024() {
        assert_eq!(parse_size("64 MiB"), Ok(64 << 20));
        assert_eq!(parse_size("1GiB"), Ok(1 << 30));
        assert_eq!(parse_size("4096"), Ok(4096));
        for wrong in ["", "MiB", "1 MB", "1  MiB", "-1", "1.5 GiB", "99999999999 TiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
