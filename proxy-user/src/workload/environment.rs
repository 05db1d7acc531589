//! The environment that a process was started with, as far as it could carry foreign code.
use proxy_common::{ENVIRONMENT_LONG, ENVIRONMENT_UNSEEN, LOADER_VARIABLES, TRACE_PROMPT};

use super::{Workload, process};

/// The names of the variables by which code could have been put into the process; none: it is clean.
///
/// # Errors
/// It cannot be told, in words.
pub(super) fn of(workload: &Workload) -> Result<Vec<String>, &'static str> {
    let mut found = workload.environment;
    if found & ENVIRONMENT_UNSEEN != 0 {
        // It is older than the programs that see starts: what it shows now is what there is.
        let shown = process::environment(workload).ok_or(
            "it was started before vouchsafe, and its environment cannot be read any more; restart it",
        )?;
        found = bits(&shown);
    }
    if found & ENVIRONMENT_LONG != 0 {
        return Err("it was started with more variables than are looked at; start it with fewer");
    }
    Ok(names(found))
}

fn names(found: u32) -> Vec<String> {
    let bits = (0..u32::BITS).filter(|bit| found & (1 << bit) != 0);
    let named = bits.map(|bit| {
        let known = LOADER_VARIABLES.iter().map(|(_, of, name)| (*of, *name));
        let family = known
            .chain([(TRACE_PROMPT.1, TRACE_PROMPT.2)])
            .filter(|(of, _)| *of == bit)
            .map(|(_, name)| name);
        family.collect::<Vec<_>>().join(" or ")
    });
    named.filter(|names| !names.is_empty()).collect()
}

/// As the kernel side does it: the first bytes of each string.
fn bits(environment: &[u8]) -> u32 {
    let mut found = 0;
    for text in environment.split(|byte| *byte == 0) {
        for (start, bit, _) in &LOADER_VARIABLES {
            if text.starts_with(*start) {
                found |= 1 << bit;
            }
        }
        if text.starts_with(TRACE_PROMPT.0) {
            found |= 1 << TRACE_PROMPT.1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_carry_code_are_named_and_others_are_not() {
        let environment = b"PATH=/bin\0LD_PRELOAD=/tmp/x.so\0XLD_PRELOAD=1\0PYTHONPATH=\0LD_PRE=1\0";
        assert_eq!(names(bits(environment)), ["LD_PRELOAD", "PYTHONPATH"]);
        assert_eq!(names(bits(b"HOME=/\0")), Vec::<String>::new());
        assert_eq!(
            names(bits(b"SHELLOPTS=xtrace\0")),
            ["BASH_ENV or BASH_FUNC_* or SHELLOPTS or BASHOPTS or PS4"]
        );
        assert_eq!(bits(b"PS4=$(id)\0"), bits(b"SHELLOPTS=xtrace\0"));
        assert_eq!(bits(b"PS40=x\0XPS4=x\0"), 0);
        let workload = |environment| Workload { environment, ..Workload::default() };
        assert_eq!(of(&workload(0)), Ok(Vec::new()));
        assert!(of(&workload(ENVIRONMENT_LONG)).unwrap_err().contains("more variables"));
        assert!(of(&workload(ENVIRONMENT_UNSEEN)).unwrap_err().contains("before vouchsafe"));
    }
}
