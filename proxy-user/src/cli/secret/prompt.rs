//! A prompt whose answer is not shown, of any length, that always leaves the terminal as it was.
//!
//! The terminal's own line editing is switched off while the answer is typed: it would cut a pasted value at 4095
//! bytes (termios(3), canonical mode), and Ctrl-C would end the program with the echo still off.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use zeroize::Zeroizing;

use crate::credentials::MAX_SECRET_BYTES;

/// Asks, and returns what was typed until the end of the line; `None` when it was cancelled (Ctrl-C, Ctrl-\, Ctrl-Z,
/// or Ctrl-D with nothing typed).
///
/// # Errors
/// The terminal cannot be read, or cannot be told not to echo.
pub(super) fn read(
    terminal: &mut File,
    screen: &mut impl Write,
    question: &str,
) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let quiet = Quiet::on(terminal)?;
    screen.write_all(question.as_bytes())?;
    screen.flush()?;
    let answer = line(terminal);
    drop(quiet);
    screen.write_all(b"\n")?;
    answer
}

/// While it exists, the terminal neither echoes nor edits nor turns keys into signals.
struct Quiet {
    terminal: OwnedFd,
    before: Termios,
}

impl Quiet {
    fn on(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = termios::tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_flags &= !(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        // Flush: what was typed before the question was not meant for it.
        termios::tcsetattr(&terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that went away needs no repair.
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

/// Reads keys until the end of the line, with the edits that people are used to.
fn line(keys: &mut impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    const CTRL_C: u8 = 0x03;
    const CTRL_D: u8 = 0x04;
    const BACKSPACE: u8 = 0x08;
    const CTRL_U: u8 = 0x15;
    const CTRL_Z: u8 = 0x1a;
    const CTRL_BACKSLASH: u8 = 0x1c;
    const DELETE: u8 = 0x7f;
    // One byte more than is allowed, so that too long shows; the buffer never grows and leaves no copy.
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
    let mut key = Zeroizing::new([0; 1]);
    loop {
        match keys.read(key.as_mut_slice()) {
            Ok(0) => return Ok(Some(line)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let [pressed] = *key;
        match pressed {
            b'\n' | b'\r' => return Ok(Some(line)),
            CTRL_C | CTRL_Z | CTRL_BACKSLASH => return Ok(None),
            CTRL_D => return Ok(Some(line).filter(|line| !line.is_empty())),
            BACKSPACE | DELETE => drop(line.pop()),
            CTRL_U => line.clear(),
            byte if line.len() <= MAX_SECRET_BYTES => line.push(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::pty::openpty;

    use super::*;

    fn typed(keys: &[u8]) -> Option<Vec<u8>> {
        line(&mut &*keys).unwrap().map(|line| line.to_vec())
    }

    #[test]
    fn keys_edit_the_line_as_usual() {
        assert_eq!(typed(b"abc\nrest").unwrap(), b"abc");
        assert_eq!(typed(b"abx\x7fc\r").unwrap(), b"abc");
        assert_eq!(typed(b"\x7fwrong\x15right\n").unwrap(), b"right");
        assert_eq!(typed(b"abc\x04").unwrap(), b"abc");
        assert_eq!(typed(b"abc").unwrap(), b"abc");
    }

    #[test]
    fn the_keys_that_cancel_give_nothing() {
        for keys in [&b"abc\x03"[..], b"\x04", b"abc\x1a", b"abc\x1c"] {
            assert!(typed(keys).is_none());
        }
    }

    #[test]
    fn an_endless_line_is_kept_to_one_byte_more_than_allowed() {
        let line = typed(&vec![b'x'; MAX_SECRET_BYTES * 2]).unwrap();
        assert_eq!(line.len(), MAX_SECRET_BYTES + 1);
    }

    #[test]
    fn a_terminal_does_not_show_what_is_typed_takes_long_values_and_is_itself_again_afterwards() {
        let pair = openpty(None, None).unwrap();
        let (mut person, mut terminal) = (File::from(pair.master), File::from(pair.slave));
        let before = termios::tcgetattr(&terminal).unwrap();
        assert!(before.local_flags.contains(LocalFlags::ECHO));
        let mut screen = terminal.try_clone().unwrap();
        let value = "v".repeat(10_000);

        let answer = thread::scope(|scope| {
            let asked =
                scope.spawn(move || read(&mut terminal, &mut screen, "Value? ").unwrap().unwrap().to_vec());
            let mut shown = [0; 7];
            person.read_exact(&mut shown).unwrap();
            assert_eq!(&shown, b"Value? ");
            person.write_all(value.as_bytes()).unwrap();
            person.write_all(b"\n").unwrap();
            asked.join().unwrap()
        });
        assert_eq!(answer, value.as_bytes());
        let mut shown = [0; 16];
        let count = person.read(&mut shown).unwrap();
        assert_eq!(&shown[..count], b"\r\n", "only the line end that closes the question");
        // The master sees the settings of the terminal.
        assert_eq!(termios::tcgetattr(&person).unwrap().local_flags, before.local_flags);
    }
}
