//! Deciding allocates nothing: counted by the allocator, not timed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proxy_policy::{Call, CallPath, Scheme, SourceFile, compile};

use crate::NOW;
use crate::folders::{policies, read};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator that counts can only be written so")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_call_with_a_normal_path_is_decided_without_an_allocation() {
    let set = compile(&read(&policies().join("example"))).set.unwrap();
    let bot = set.identity_named("invoice-bot").unwrap().id;
    let before = ALLOCATIONS.get();
    for method in ["GET", "DELETE"] {
        let path = CallPath::normalize("/v1/invoices/in_1/lines%20x").unwrap();
        let api = set.api_for(Scheme::Https, "api.stripe.com", 443).unwrap();
        let decision = set.decide(bot, &Call::plain(api.id, method, &path, NOW));
        assert_eq!(decision.is_allowed(), method == "GET");
    }
    assert_eq!(ALLOCATIONS.get(), before);
    drop(set);
    // A list that is long enough for the index.
    let mut text =
        "[api.x]\nhosts = [\"x.example\"]\n[identity]\nuser = \"u\"\n[[grant]]\napi = \"x\"\nallow = ["
            .to_owned();
    (0..100).for_each(|rule| text += &format!("\"GET /v1/t%20{rule}/*\", "));
    text += "]\ndeny = [";
    (0..100).for_each(|rule| text += &format!("\"* /v1/t%20{rule}/secret\", "));
    let set = compile(&[SourceFile::new("policies/u.toml", text + "]\n")]).set.unwrap();
    let (api, bot) = (set.apis().next().unwrap().id, set.identity_named("u").unwrap().id);
    let before = ALLOCATIONS.get();
    for (path, allowed) in [("/v1/t%2099/x", true), ("/v1/t%2099/secret", false), ("/v1/other", false)] {
        let path = CallPath::normalize(path).unwrap();
        assert_eq!(set.decide(bot, &Call::plain(api, "GET", &path, NOW)).is_allowed(), allowed);
    }
    assert_eq!(ALLOCATIONS.get(), before);
    drop(vec![0u8; 10]);
    assert!(ALLOCATIONS.get() > before, "the count counts");
}
