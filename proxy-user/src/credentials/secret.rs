//! A secret: bytes that cannot be printed, copied or serialized, and that are wiped when they are dropped.

use zeroize::Zeroizing;

/// Bytes that authenticate somebody. There is no `Debug`, `Display`, `Serialize` or `Clone`, so that a secret
/// cannot slip into a log, an error or a reply; the compiler checks it below. Share one with `Arc`.
///
/// ```compile_fail
/// let secret = vouchsafe::credentials::Secret::new(vec![1]);
/// println!("{secret:?}");
/// ```
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over. The whole allocation, spare capacity included, is wiped when the secret is dropped.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves. This is the only way to them: whoever calls it answers for where they go.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes the secret has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the secret has no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

/// Fails to compile when `$type` implements one of the traits: the associated item is then ambiguous.
macro_rules! never_implements {
    ($type:ty: $($trait:path),+ $(,)?) => {
        const _: () = {
            $({
                trait Ambiguous<A> {
                    const HERE: () = ();
                }
                struct Implemented;
                impl<T: ?Sized> Ambiguous<()> for T {}
                impl<T: ?Sized + $trait> Ambiguous<Implemented> for T {}
                let () = <$type as Ambiguous<_>>::HERE;
            })+
        };
    };
}
pub(super) use never_implements;

never_implements!(Secret: core::fmt::Debug, core::fmt::Display, Clone, serde::Serialize, AsRef<[u8]>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gives_back_the_bytes_it_was_made_of() {
        let secret = Secret::new(b"s3cret".to_vec());
        assert_eq!(secret.expose(), b"s3cret");
        assert_eq!(secret.len(), 6);
        assert!(!secret.is_empty());
    }
}
