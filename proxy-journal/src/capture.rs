//! Bodies that are kept for auditors: what outcomes say of their files.
//!
//! Files lie below `captures/` in the directory of the journal, apart for each segment, and are written in the format of
//! [age](https://age-encryption.org/v1), which the host itself cannot read. What the journal holds against them is their SHA-256.

use serde::{Deserialize, Serialize};

/// Which body of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// That of the request, as the client sent it.
    Request,
    /// That of the answer, as the client got it.
    Response,
}

impl Part {
    /// As it is spelled in records and in names of files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Part::Request => "request",
            Part::Response => "response",
        }
    }
}

/// How much of a body is in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureEnd {
    /// All of it.
    Whole,
    /// As much as its grant says; there was more.
    Limit,
    /// What came before it, or the call, broke off.
    Broken,
    /// What the daemon had written when it was stopped in mid-call. Of a body that was under way the last 64 KiB may be missing, and `age`
    /// says that its file has no end.
    Killed,
}

/// A body that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capture {
    /// Of what.
    pub part: Part,
    /// Its file, below [`FOLDER`]: `00000012/01a210ed-2479-71f9-8e05-0f31b1b0c8cf.request.age`.
    pub file: String,
    /// How much of the body it holds.
    pub end: CaptureEnd,
    /// Bytes of the body in it; absent where the daemon was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
}
