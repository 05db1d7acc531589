//! What a parser of foreign bytes answers: done, more, or not this.

/// The answer of a pure parser that is called again with a longer prefix of the same stream.
///
/// Parsers keep no state between calls. Once a prefix was answered with `Done` or `NotThis`, every longer prefix
/// gets the same kind of answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<T> {
    /// The bytes are complete as far as the parser cares.
    Done(T),
    /// So far so good; more bytes are needed to tell.
    More,
    /// No continuation of these bytes can become what the parser looks for.
    NotThis(Why),
}

/// Why bytes are not what a parser looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Another protocol: some other parser may know it.
    #[error("another protocol")]
    OtherProtocol,
    /// The protocol is this one, but the message is larger than we read before deciding.
    #[error("larger than the {limit} bytes that are read before a decision")]
    TooLarge {
        /// The limit that was passed, in bytes.
        limit: usize,
    },
    /// The protocol is this one, but the message breaks its rules.
    #[error("{0}")]
    Malformed(&'static str),
    /// The server name is not a DNS host name (RFC 6066 section 3 admits nothing else).
    #[error("the server name (SNI) is not a DNS host name")]
    BadServerName,
}
