//! What goes in: the texts of the policy files.

/// One file: a label and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path from the root of the policies, as messages show it: `policies/invoice-bot.toml`. Its folder says what
    /// the file may hold, its stem is the name of the identity.
    pub path: String,
    /// The content.
    pub text: String,
}

impl SourceFile {
    /// A file.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }
}
