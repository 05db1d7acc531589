//! A placeholder is replaced where the API has it, and nowhere else.

use http::Method;
use http::header::HeaderMap;
use http::uri::Authority;

use super::*;

const TEXT: &str = "vouchsafe-demo";
const SECRET: &[u8] = b"s3/cr\"t:x";

fn stand(parts: [bool; 4]) -> Stand {
    let [headers, path, query, body] = parts;
    let placeholder = Placeholder { text: TEXT.into(), headers, path, query, body };
    Stand::new(placeholder, Secret::new(SECRET.to_vec())).unwrap_or_else(|_| panic!("it fits"))
}

/// The target and the headers that go out.
fn filled(
    stand: &Stand,
    target: &str,
    lines: &[(&'static str, &str)],
) -> Result<(String, HeaderMap), Misplaced> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    let (mut target, authority) = (PathAndQuery::try_from(target).unwrap(), Authority::from_static("a.test"));
    let mut head =
        Head { method: &Method::GET, target: &mut target, authority: &authority, headers: &mut headers };
    stand.fill(&mut head)?;
    Ok((target.to_string(), headers))
}

#[test]
fn in_the_path_it_is_escaped_and_the_query_is_another_part() {
    let stand = stand([false, true, false, false]);
    let target = |text| filled(&stand, text, &[]).map(|(target, _)| target);
    assert_eq!(target("/botvouchsafe-demo/send?a=1"), Ok("/bots3%2Fcr%22t%3Ax/send?a=1".into()));
    assert_eq!(
        target("/botvouchsafe-demo/send?note=vouchsafe-demo"),
        Ok("/bots3%2Fcr%22t%3Ax/send?note=vouchsafe-demo".into())
    );
    assert_eq!(target("/send?token=vouchsafe-demo"), Err(Misplaced::NoPlaceholder));
    assert_eq!(target("/vouchsafe-demo/vouchsafe-demo"), Err(Misplaced::Twice));
}

#[test]
fn in_the_query_the_path_is_another_part() {
    let stand = stand([false, false, true, false]);
    let target = |text| filled(&stand, text, &[]).map(|(target, _)| target);
    assert_eq!(target("/vouchsafe-demo?a=vouchsafe-demo"), Ok("/vouchsafe-demo?a=s3%2Fcr%22t%3Ax".into()));
    assert_eq!(target("/vouchsafe-demo"), Err(Misplaced::NoPlaceholder));
}

#[test]
fn in_headers_it_is_found_alone_within_others_and_within_basic() {
    let stand = stand([true, false, false, false]);
    let header = |name: &'static str, value: &str| {
        let (_, headers) = filled(&stand, "/", &[("accept", "*/*"), (name, value)]).unwrap();
        assert_eq!(headers.len(), 2);
        assert!(headers[name].is_sensitive());
        headers[name].to_str().unwrap().to_owned()
    };
    assert_eq!(header("x-key", TEXT), "s3/cr\"t:x");
    assert_eq!(header("authorization", "Token token=\"vouchsafe-demo\""), "Token token=\"s3/cr\"t:x\"");
    let basic =
        |text: &str| format!("Basic {}", String::from_utf8_lossy(escape::base64(text.as_bytes()).expose()));
    assert_eq!(header("authorization", &basic("me:vouchsafe-demo")), basic("me:s3/cr\"t:x"));
    let twice = filled(&stand, "/", &[("x-key", TEXT), ("authorization", &basic("me:vouchsafe-demo"))]);
    assert_eq!(twice.unwrap_err(), Misplaced::Twice);
    assert!(stand.is_in(&basic("me:vouchsafe-demo").parse().unwrap()));
    assert!(!stand.is_in(&basic("me:own").parse().unwrap()));
}

#[test]
fn in_a_body_it_is_spelled_as_the_body_spells_things() {
    let stand = stand([false, false, false, true]);
    let body = |text: &str, textual| stand.in_body(text.as_bytes(), textual);
    assert_eq!(body("{\"key\":\"vouchsafe-demo\"}", Textual::Json).unwrap(), &br#"{"key":"s3/cr\"t:x"}"#[..]);
    assert_eq!(body("a=1&key=vouchsafe-demo", Textual::Form).unwrap(), &b"a=1&key=s3%2Fcr%22t%3Ax"[..]);
    assert_eq!(body("a=1", Textual::Form), Err(Misplaced::NoPlaceholder));
    assert_eq!(body("vouchsafe-demo vouchsafe-demo", Textual::Json), Err(Misplaced::Twice));
}

#[test]
fn what_a_header_cannot_carry_is_no_stand_for_headers() {
    let placeholder =
        |headers, body| Placeholder { text: TEXT.into(), headers, path: true, query: false, body };
    assert!(Stand::new(placeholder(true, false), Secret::new(b"a\nb".to_vec())).is_err());
    assert!(Stand::new(placeholder(false, true), Secret::new(b"\xff".to_vec())).is_err());
    assert!(Stand::new(placeholder(false, false), Secret::new(b"a\nb\xff".to_vec())).is_ok());
    assert!(
        matches!(filled(&stand([true, true, true, true]), "/", &[]), Ok((target, _)) if target == "/"),
        "in the body"
    );
}
