//! Bodies that were packed for the way (RFC 9110 §8.4.1), unpacked as they come.
//!
//! Bytes in, bytes out: nothing here waits. One step makes one piece at most, so whoever takes pieces slowly slows down who sends
//! them. All windows together have a bound. What a body can make this hold: a piece for each coding, and the window of each, which is 32 KiB for gzip and deflate, 16 MiB
//! for brotli (its large windows are refused) and 8 MiB for zstd (RFC 9659).

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};
use tokio::sync::{Semaphore, SemaphorePermit};
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

/// How many bytes a piece has at most.
pub const PIECE: usize = 16 * 1024;

/// How many codings one over the other are unpacked.
pub const CODINGS: usize = 2;

/// How many steps that make nothing are done before others have their turn.
const STEPS: usize = 16;

/// 2²³ bytes: what RFC 9659 has decoders take, and no more.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The largest window of gzip (RFC 1952) and deflate, 2¹⁵ bytes.
const GZIP_WINDOW_BITS: u8 = 15;

/// What the windows of all bodies have together, in MiB. Whoever has the small ones needs none of it.
const ROOM_MIB: usize = 256;
static ROOM: Semaphore = Semaphore::const_new(ROOM_MIB);

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952; several members one after the other, too.
    Gzip,
    /// RFC 1950, and without its frame RFC 1951, as some send it.
    Deflate,
    /// RFC 7932.
    Brotli,
    /// RFC 8878; several frames one after the other, too.
    Zstd,
}

impl Coding {
    /// By its name in `content-encoding`, in letters of any size.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () if is("br") => Some(Self::Brotli),
            () if is("zstd") => Some(Self::Zstd),
            () => None,
        }
    }

    /// What its window has at most, in MiB, by its first byte; nothing when it is small.
    fn window_mib(self, first: u8) -> u32 {
        match self {
            Self::Gzip | Self::Deflate => 0,
            Self::Zstd => 1 << (ZSTD_WINDOW_LOG - 20),
            // RFC 7932 §9.1: WBITS, of which those from 18 on need no more than four bits.
            Self::Brotli => match (first & 1, first >> 1 & 7) {
                (1, bits @ 3..) => 1 << (17 + u32::from(bits) - 20),
                _ => 1,
            },
        }
    }

    /// Whether there may be another one after its end.
    fn is_repeated(self) -> bool {
        matches!(self, Self::Gzip | Self::Zstd)
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "brotli",
            Self::Zstd => "zstd",
        })
    }
}

/// Why a body cannot be unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// These are not bytes of this coding, or they want more memory than there is for one body.
    #[error("it is no sound {0}")]
    Damaged(Coding),
    /// There is something behind its end.
    #[error("its {0} goes on after the end")]
    Trailing(Coding),
    /// It ends too early.
    #[error("its {0} is not whole")]
    Short(Coding),
    /// Bodies that are under way hold all the memory that there is for windows.
    #[error("too many bodies are unpacked at once; its {0} has no room")]
    Crowded(Coding),
}

/// What one look gives.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The next bytes, at most [`PIECE`].
    Piece(Bytes),
    /// Nothing without more input.
    More,
    /// Nothing yet: ask again when others had their turn.
    Busy,
}

/// Unpacks one body.
pub struct Unpacker {
    /// In the order in which they are unpacked.
    stages: Vec<Stage>,
    piece: Box<[u8]>,
    failed: Option<UnpackError>,
}

impl Unpacker {
    /// For a body that these were done to, one after the other.
    #[must_use]
    pub fn new(codings: &[Coding]) -> Self {
        let stages = codings.iter().rev().map(|coding| Stage::new(*coding)).collect();
        Self { stages, piece: vec![0; PIECE].into(), failed: None }
    }

    /// Takes what came; after [`Next::More`], which says that all before it is used up.
    pub fn push(&mut self, packed: Bytes) {
        if let Some(stage) = self.stages.first_mut() {
            stage.input = packed;
        }
    }

    /// The next piece.
    ///
    /// # Errors
    ///
    /// The body cannot be unpacked; every later call says so again.
    pub fn next_piece(&mut self) -> Result<Next, UnpackError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut steps = STEPS;
        let next = pull(&mut self.stages, &mut self.piece, &mut steps);
        self.failed = next.as_ref().err().copied();
        next
    }

    /// Whether the body may end here. One of no bytes is whole, whatever it is said to be.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.failed.is_none() && self.stages.iter().all(|stage| stage.is_whole && stage.is_idle())
    }

    /// The end of the input.
    ///
    /// # Errors
    ///
    /// It is not the end of what was packed.
    pub fn end(&mut self) -> Result<(), UnpackError> {
        if self.failed.is_none() {
            let open = self.stages.iter().find(|stage| !stage.is_whole || !stage.is_idle());
            self.failed = open.map(|stage| UnpackError::Short(stage.coding));
        }
        self.failed.map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.stages.iter().map(|stage| stage.coding)).finish()
    }
}

/// What the last of the stages makes of what those before it make.
fn pull(stages: &mut [Stage], piece: &mut [u8], steps: &mut usize) -> Result<Next, UnpackError> {
    let Some((stage, before)) = stages.split_last_mut() else { return Ok(Next::More) };
    loop {
        if stage.is_idle() {
            match pull(before, piece, steps)? {
                Next::Piece(input) => stage.input = input,
                none => return Ok(none),
            }
        }
        let Some(left) = steps.checked_sub(1) else { return Ok(Next::Busy) };
        *steps = left;
        let made = stage.step(piece)?;
        if let Some(made) = piece.get(..made).filter(|made| !made.is_empty()) {
            return Ok(Next::Piece(Bytes::copy_from_slice(made)));
        }
    }
}

/// One coding of a body.
struct Stage {
    coding: Coding,
    /// Nothing before the first byte, and after the end.
    decoder: Option<Decoder>,
    input: Bytes,
    /// Of [`ROOM`], for the window of its decoder.
    room: Option<SemaphorePermit<'static>>,
    /// The last step filled its piece: there may be more without more input.
    has_more: bool,
    /// Nothing came, or it came to an end.
    is_whole: bool,
    ended: bool,
}

impl Stage {
    fn new(coding: Coding) -> Self {
        let (decoder, room, input) = (None, None, Bytes::new());
        Self { coding, decoder, room, input, has_more: false, is_whole: true, ended: false }
    }

    fn is_idle(&self) -> bool {
        self.input.is_empty() && !self.has_more
    }

    /// How many bytes of the piece are the next ones.
    fn step(&mut self, piece: &mut [u8]) -> Result<usize, UnpackError> {
        if self.ended && !self.coding.is_repeated() && !self.input.is_empty() {
            return Err(UnpackError::Trailing(self.coding));
        }
        let damaged = UnpackError::Damaged(self.coding);
        if self.room.is_none() {
            let Some(first) = self.input.first() else { return Ok(0) };
            let window = self.coding.window_mib(*first);
            self.room = Some(ROOM.try_acquire_many(window).map_err(|_| UnpackError::Crowded(self.coding))?);
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(Decoder::new(self.coding).ok_or(damaged)?),
        };
        let input = self.input.get(..PIECE.min(self.input.len())).unwrap_or_default();
        let Step { taken, made, ended } = decoder.step(input, piece).ok_or(damaged)?;
        if taken == 0 && made == 0 && !ended && !self.input.is_empty() {
            return Err(damaged);
        }
        if taken > 0 || made > 0 || ended {
            self.is_whole = ended;
        }
        self.input = self.input.split_off(taken.min(self.input.len()));
        self.has_more = made == piece.len() && !ended;
        if ended {
            self.ended = true;
            // A frame of zstd begins anew by itself, in the memory of the one before.
            if self.coding != Coding::Zstd {
                self.decoder = None;
            }
        }
        Ok(made)
    }
}

/// What a step did.
#[derive(Default)]
struct Step {
    taken: usize,
    made: usize,
    ended: bool,
}

enum Decoder {
    Flate(Decompress),
    /// Deflate whose first two bytes, which tell whether it has a frame, did not come yet.
    Unframed(Option<u8>),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(DCtx<'static>),
}

impl Decoder {
    /// `None`: there is no memory for it.
    fn new(coding: Coding) -> Option<Self> {
        Some(match coding {
            Coding::Gzip => Self::Flate(Decompress::new_gzip(GZIP_WINDOW_BITS)),
            Coding::Deflate => Self::Unframed(None),
            Coding::Brotli => {
                let alloc = StandardAlloc::default;
                Self::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
            }
            Coding::Zstd => {
                let mut context = DCtx::try_create()?;
                context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).ok()?;
                Self::Zstd(context)
            }
        })
    }

    /// `None`: the input is not what it should be.
    fn step(&mut self, input: &[u8], piece: &mut [u8]) -> Option<Step> {
        match self {
            Self::Flate(decoder) => inflate(decoder, input, piece),
            Self::Unframed(first) => {
                let (Some(one), Some(two)) = (*first, input.first()) else {
                    *first = first.or(input.first().copied());
                    return Some(Step { taken: input.len().min(1), ..Step::default() });
                };
                let mut decoder = Decompress::new(is_zlib(one, *two));
                // Nothing comes of one byte, framed or not.
                inflate(&mut decoder, &[one], piece)?;
                let step = inflate(&mut decoder, input, piece);
                *self = Self::Flate(decoder);
                step
            }
            Self::Brotli(state) => {
                let (mut left, mut room) = (input.len(), piece.len());
                let (mut taken, mut made, mut total) = (0, 0, 0);
                let result = BrotliDecompressStream(
                    &mut left, &mut taken, input, &mut room, &mut made, piece, &mut total, state,
                );
                let ended = match result {
                    BrotliResult::ResultSuccess => true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => false,
                    BrotliResult::ResultFailure => return None,
                };
                Some(Step { taken, made, ended })
            }
            Self::Zstd(context) => {
                let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(piece));
                let wanted = context.decompress_stream(&mut to, &mut from).ok()?;
                Some(Step { taken: from.pos(), made: to.pos(), ended: wanted == 0 })
            }
        }
    }
}

fn inflate(decoder: &mut Decompress, input: &[u8], piece: &mut [u8]) -> Option<Step> {
    let (taken, made) = (decoder.total_in(), decoder.total_out());
    let status = decoder.decompress(input, piece, FlushDecompress::Sync).ok()?;
    Some(Step {
        taken: usize::try_from(decoder.total_in().checked_sub(taken)?).ok()?,
        made: usize::try_from(decoder.total_out().checked_sub(made)?).ok()?,
        ended: status == Status::StreamEnd,
    })
}

/// Whether deflate begins with the frame of RFC 1950 §2.2. What begins so without one would be a stored block with bits set where
/// nobody sets them.
fn is_zlib(one: u8, two: u8) -> bool {
    one & 0x0f == 8 && one >> 4 <= 7 && u16::from_be_bytes([one, two]).is_multiple_of(31)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
pub(crate) mod tests;
