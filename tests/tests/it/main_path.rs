//! The main job: unmodified bots call APIs with a credential that they never hold.

use tests::World;

#[test]
fn curl_gets_200_over_http1_and_http2_without_a_key() {
    let world = World::start();
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = world.curl(&[option, "https://api.test/v1/invoices/7"]);
        assert_eq!((answer.status, answer.version.as_str()), (200, version), "{answer:?}");
        assert_eq!(answer.json()["key"], "ours");
    }
}
