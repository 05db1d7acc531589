//! `vouchsafe secret seal-key`: the key of the store goes to systemd, which seals it to this machine.

use std::io::Write;
use std::path::Path;

use crate::credentials::{Sealed, Store};

pub(super) const HELP: &str = "\
Without it, the key of the secret store is a file beside the store: whoever gets a copy of that folder (a backup, a disk) has the secrets. \
Sealed by systemd-creds(1), it opens on this machine alone: by its TPM and the host's key where there is a TPM, else by the host's key in \
/var/lib/systemd, which is then what must not be in the same backup.

    vouchsafe secret seal-key                   seals it, opens it again to see that it is the same, and says what to add to the unit
    systemctl restart vouchsafe                 after that
    vouchsafe secret seal-key --remove-plain    takes the file away, once systemd hands the key to the daemon

Keep a copy of the key where your other recovery keys are: a machine whose TPM or host key is gone opens it never again.";

/// Does it, and says what it did.
///
/// # Errors
/// There is no key or no systemd-creds, it failed, or, with `remove_plain`, systemd does not hand the key over yet.
pub(super) fn run(
    store: &Store,
    to: &Path,
    with_key: &str,
    remove_plain: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let shown = to.display();
    match store.seal_key(to, with_key)? {
        Sealed::Now => writeln!(out, "the key of the store is sealed in {shown}, and opens to the same key")?,
        Sealed::Before => {
            writeln!(out, "{shown} was there already, and opens to the same key; it was left as it is")?;
        }
    }
    let own = store.own_key_file().display();
    if remove_plain {
        store.remove_own_key(to)?;
        writeln!(
            out,
            "removed {own}: from now on only systemd has the key. Its old blocks may stay on the disk and in backups until they are \
             written over"
        )?;
        return Ok(());
    }
    writeln!(
        out,
        "{own} is still there, and used until systemd hands the key over. Next:\n\n    \
         systemctl edit vouchsafe\n        [Service]\n        LoadCredentialEncrypted=vouchsafe-store-key:{shown}\n    \
         systemctl restart vouchsafe\n    vouchsafe secret seal-key --remove-plain\n"
    )?;
    Ok(())
}
