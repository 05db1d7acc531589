//! `kind = "aws"`: unmodified clients of AWS, with keys that are none or without any, at a server that checks each signature.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;
use tests::{Finished, RAW_ADDRESS, World};

use super::jwt::{assert_nowhere, world as world_of};

const REQUIREMENTS: &str = include_str!("receivers/aws/requirements.txt");
const SETUP: &str = include_str!("receivers/aws/setup.py");

/// How many calls the server takes before it checks signatures; the setup makes them.
const UNCHECKED: &str = "8";

/// Installs the server and the SDK as the list of requirements says, once; returns where the packages are.
fn installed() -> &'static Path {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    PACKAGES.get_or_init(|| super::packages::install("aws", REQUIREMENTS))
}

/// The key that the server knows, and its role.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: String,
    role: String,
}

/// Starts the server, which knows one user with a key, one role and one bucket.
fn serve(world: &World) -> Key {
    let packages = format!("PYTHONPATH={}", installed().display());
    let count = format!("INITIAL_NO_AUTH_ACTION_COUNT={UNCHECKED}");
    let arguments = [
        packages.as_str(),
        count.as_str(),
        // The store of objects is no subdomain here.
        "S3_IGNORE_SUBDOMAIN_BUCKETNAME=true",
        "/usr/bin/python3",
        "-m",
        "moto.server",
        "-H",
        RAW_ADDRESS,
        "-p",
        "443",
        "-c",
        "api/server.pem",
        "-k",
        "api/server.key",
    ];
    world.server("aws", "env", &arguments, &format!("{RAW_ADDRESS}:443"));
    let setup = world.write("setup.py", SETUP);
    let mut command = world.enter(None);
    command.args(["env", "-i", &packages, "/usr/bin/python3"]).arg(setup);
    let output = command.args([&format!("https://{RAW_ADDRESS}"), UNCHECKED]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    Key { id: text("id"), secret: text("secret"), role: text("role") }
}

/// A world with this credential, its server and its daemon.
pub(super) fn start(definition: impl Fn(&Key) -> String) -> (World, Key) {
    let world = world_of("kind = \"static\"\nsecret = \"vault:aws\"");
    world.policy(
        "apis/apis.toml",
        "[api.tokens]\nhosts = [\"raw.test\"]\n[api.demo]\nhosts = [\"api.test\"]\n",
    );
    let key = serve(&world);
    let text = format!("[credential.token]\nkind = \"aws\"\n{}\n", definition(&key));
    world.policy("credentials/token.toml", &text);
    world.secret("aws", &key.secret);
    world.daemon();
    (world, key)
}

fn pair(key: &Key) -> String {
    format!("access_key_id = \"{}\"\nsecret_access_key = \"vault:aws\"", key.id)
}

/// What a bot with the official SDK prints. It has keys that are none.
pub(super) fn sdk(world: &World, script: &str) -> Finished {
    let begin = "import boto3, json, os\nfrom botocore.config import Config\n\
                 def client(service, **more):\n    return boto3.client(service, endpoint_url='https://raw.test', \
                 region_name='eu-central-1', verify=os.environ['SSL_CERT_FILE'], config=Config(s3={'addressing_style': \
                 'path'}, retries={'max_attempts': 1}, **more))\n";
    let bot = world.bot("python3").env("PYTHONPATH", &installed().display().to_string());
    let bot = bot.env("AWS_ACCESS_KEY_ID", "DUMMYDUMMYDUMMY").env("AWS_SECRET_ACCESS_KEY", "no-key-at-all");
    bot.env("AWS_SESSION_TOKEN", "no-token-at-all").args(["-c", &format!("{begin}{script}")]).run()
}

#[track_caller]
pub(super) fn assert_ok(finished: &Finished) {
    assert!(finished.code == Some(0), "{finished:?}");
}

#[test]
fn the_official_sdk_stores_and_reads_objects_with_a_key_that_it_does_not_have() {
    let (world, key) = start(pair);
    let script = "s3 = client('s3')\n\
        names = ['plain', 'a b/c+d=e', 'caf\\u00e9/~x', '(1)!*.txt', 'a&b']\n\
        for number, name in enumerate(names):\n\
        \x20   body = bytes([65 + number]) * (number * 1000)\n\
        \x20   s3.put_object(Bucket='bucket', Key=name, Body=body, ContentType='text/x; q=\"a  b\"', Metadata={'note': 'a   b'})\n\
        \x20   assert s3.get_object(Bucket='bucket', Key=name)['Body'].read() == body, name\n\
        listed = [it['Key'] for it in s3.list_objects_v2(Bucket='bucket', Prefix='', MaxKeys=100)['Contents']]\n\
        assert sorted(listed) == sorted(names), listed\n\
        s3.upload_file('/usr/bin/curl', 'bucket', 'curl')\n\
        assert s3.head_object(Bucket='bucket', Key='curl')['ContentLength'] == os.path.getsize('/usr/bin/curl')\n\
        s3.delete_objects(Bucket='bucket', Delete={'Objects': [{'Key': name} for name in names]})\n\
        print('done')\n";
    let finished = sdk(&world, script);
    assert_ok(&finished);
    let secrets = [key.secret.as_str(), "no-key-at-all", "no-token-at-all"];
    secrets.into_iter().for_each(|secret| assert_nowhere(&world, secret));
    // What the SDK signed with is told by its fingerprint.
    let id = world.decision(Some("/bucket/plain"))["id"].clone();
    let outcome = world.record("outcome", |record| record["id"] == id);
    let mut removed: Vec<&str> =
        outcome["removed"].as_array().unwrap().iter().map(|it| it["place"].as_str().unwrap()).collect();
    removed.sort_unstable();
    assert_eq!(removed, ["header authorization", "header x-amz-date", "header x-amz-security-token"]);
}

#[test]
fn other_services_have_their_whole_bodies_signed() {
    let (world, _) = start(pair);
    let script = "db = client('dynamodb')\n\
        db.create_table(TableName='t', KeySchema=[{'AttributeName': 'k', 'KeyType': 'HASH'}], AttributeDefinitions=\
        [{'AttributeName': 'k', 'AttributeType': 'S'}], BillingMode='PAY_PER_REQUEST')\n\
        db.put_item(TableName='t', Item={'k': {'S': 'x'}, 'more': {'S': 'x' * 300000}})\n\
        print(db.scan(TableName='t')['Count'], client('sts').get_caller_identity()['Arn'])\n";
    let finished = sdk(&world, script);
    assert_ok(&finished);
    assert!(
        finished.stdout.starts_with("1 arn:aws:iam::") && finished.stdout.contains(":user/host"),
        "{finished:?}"
    );
}

/// A world whose server has objects only, and checks signatures in the query and of chunks, too.
fn objects(secret: &str) -> World {
    let world =
        world_of("kind = \"aws\"\naccess_key_id = \"AKIDOBJECTS\"\nsecret_access_key = \"vault:aws\"");
    fs::create_dir_all(world.path("objects/bucket")).unwrap();
    let program = tests::built("objects").display().to_string();
    let address = format!("{RAW_ADDRESS}:443");
    let arguments = [
        &*address,
        "api/server.pem",
        "api/server.key",
        "objects",
        "AKIDOBJECTS",
        "secret/of+objects/0123456789",
    ];
    world.server("objects", &program, &arguments, &address);
    world.secret("aws", secret);
    world.daemon();
    world
}

#[test]
fn links_that_were_signed_with_no_key_are_signed_anew_in_the_query() {
    let world = objects("secret/of+objects/0123456789");
    let script = "s3 = client('s3', signature_version='s3v4')\n\
        s3.put_object(Bucket='bucket', Key='a b=c', Body=b'hello')\n\
        print(s3.generate_presigned_url('get_object', Params={'Bucket': 'bucket', 'Key': 'a b=c', \
        'ResponseContentType': 'text/x+y'}))\n\
        print(s3.generate_presigned_url('put_object', Params={'Bucket': 'bucket', 'Key': 'new', 'ContentType': 'a/b'}))\n";
    let finished = sdk(&world, script);
    assert_ok(&finished);
    let (get, put) = finished.stdout.trim().split_once('\n').unwrap();
    assert!(get.contains("X-Amz-Signature=") && get.contains("DUMMY"), "{get}");
    for version in ["--http1.1", "--http2"] {
        let answer = world.curl(&[version, get]);
        assert_eq!((answer.status, answer.body.as_str()), (200, "hello"), "{answer:?}");
        assert_eq!(answer.content_type, "text/x+y");
        let put = world.curl(&[version, "-X", "PUT", "-H", "content-type: a/b", "-d", "new", put]);
        assert_eq!(put.status, 200, "{put:?}");
    }
    assert_eq!(fs::read(world.path("objects/bucket/new")).unwrap(), b"new");
    world.secret("aws", "another/secret/0123456789");
    let answer = world.curl(&[get]);
    assert_eq!(answer.status, 403, "{answer:?}");
}

/// Sends a body in chunks that are signed with no key: the number of chunks and the size of each, with or without trailers.
const CHUNKS: &str = "import http.client, os, ssl, sys, zlib, base64\n\
    count, size, trailers = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == 'trailers'\n\
    chunk = (b'0123456789abcdef' * (size // 16 + 1))[:size]\n\
    none, crc = b'0' * 64, 0\n\
    for _ in range(count): crc = zlib.crc32(chunk, crc)\n\
    def body():\n\
    \x20   for _ in range(count): yield b'%x;chunk-signature=%s\\r\\n' % (size, none) + chunk + b'\\r\\n'\n\
    \x20   yield b'0;chunk-signature=%s\\r\\n' % none\n\
    \x20   if trailers:\n\
    \x20       sum = base64.b64encode(crc.to_bytes(4, 'big'))\n\
    \x20       yield b'x-amz-checksum-crc32:%s\\r\\nx-amz-trailer-signature:%s\\r\\n' % (sum, none)\n\
    \x20   yield b'\\r\\n'\n\
    line = len(b'%x;chunk-signature=%s\\r\\n' % (size, none)) + size + 2\n\
    length = count * line + len(b'0;chunk-signature=\\r\\n') + 64 + 2\n\
    headers = {'content-encoding': 'aws-chunked', 'x-amz-decoded-content-length': str(count * size),\n\
    \x20   'x-amz-content-sha256': 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD' + ('-TRAILER' if trailers else ''),\n\
    \x20   'authorization': 'AWS4-HMAC-SHA256 Credential=DUMMY/20200101/us-east-1/s3/aws4_request, \
    SignedHeaders=host;x-amz-date, Signature=00', 'x-amz-date': '20200101T000000Z'}\n\
    if trailers:\n\
    \x20   headers['x-amz-trailer'] = 'x-amz-checksum-crc32'\n\
    \x20   length += len(b'x-amz-checksum-crc32:\\r\\nx-amz-trailer-signature:\\r\\n') + 8 + 64\n\
    headers['content-length'] = str(length)\n\
    call = http.client.HTTPSConnection('raw.test', context=ssl.create_default_context(cafile=os.environ['SSL_CERT_FILE']))\n\
    call.request('PUT', '/bucket/chunks', body(), headers)\n\
    answer = call.getresponse()\n\
    print(answer.status, answer.read().decode())\n";

#[test]
fn chunks_that_were_signed_with_no_key_are_signed_anew_on_their_way() {
    let world = objects("secret/of+objects/0123456789");
    for (count, size, trailers) in [
        ("3", "65536", "none"),
        ("5", "8193", "trailers"),
        ("1", "2000000", "none"),
        ("40", "131072", "trailers"),
    ] {
        let sent = world.python(CHUNKS, &[count, size, trailers]);
        assert!(sent.stdout.starts_with("200 "), "{count} {size} {trailers}: {sent:?}");
        let (count, size): (usize, usize) = (count.parse().unwrap(), size.parse().unwrap());
        let chunk: Vec<u8> = b"0123456789abcdef".iter().copied().cycle().take(size).collect();
        assert!(fs::read(world.path("objects/bucket/chunks")).unwrap() == chunk.repeat(count));
    }
    let sent = world.python(CHUNKS, &["1", "2200000", "none"]);
    assert!(!sent.stdout.starts_with("200 "), "more than is signed: {sent:?}");
    world.secret("aws", "another/secret/0123456789");
    let sent = world.python(CHUNKS, &["3", "65536", "none"]);
    assert!(sent.stdout.starts_with("403 "), "{sent:?}");
}

#[test]
fn a_client_that_does_not_sign_at_all_is_signed_for_what_the_policy_says() {
    let (world, _) = start(|key| format!("{}\nregion = \"eu-central-1\"\nservice = \"s3\"", pair(key)));
    let stored = world.curl(&[
        "-X",
        "PUT",
        "-H",
        "content-type: text/plain",
        "--data-binary",
        "hello",
        "https://raw.test/bucket/a%20b/c@d",
    ]);
    assert_eq!(stored.status, 200, "{stored:?}");
    let read = world.curl(&["https://raw.test/bucket/a%20b/c@d?response-content-type=a+b"]);
    assert_eq!((read.status, read.body.as_str()), (200, "hello"), "{read:?}");
    // One that is sent in pieces of no known length.
    let file = world.write("large", &"x".repeat(3_000_000));
    let file = file.display().to_string();
    let stored =
        world.curl(&["-T", &file, "-H", "transfer-encoding: chunked", "https://raw.test/bucket/large"]);
    assert_eq!(stored.status, 200, "{stored:?}");
}

#[test]
fn without_a_region_a_client_that_does_not_sign_is_refused_with_what_to_do() {
    let (world, _) = start(pair);
    let answer = world.curl(&["https://raw.test/bucket/x"]);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("region") && answer.body.contains("service"), "{answer:?}");
}

#[test]
fn a_key_that_is_wrong_is_found_by_the_server() {
    let (world, _) = start(pair);
    world.secret("aws", "wrong/secret/wrong/secret/wrong/secret/0");
    let finished = sdk(&world, "client('s3').put_object(Bucket='bucket', Key='x', Body=b'x')\n");
    assert!(finished.stderr.contains("SignatureDoesNotMatch"), "{finished:?}");
}

#[test]
fn the_keys_of_a_role_are_obtained_for_each_identity() {
    let role = |key: &Key| {
        let more =
            "session_name = \"bot-{identity}\"\nsts_url = \"https://raw.test/\"\nregion = \"eu-central-1\"";
        format!("{}\nrole_arn = \"{}\"\n{more}", pair(key), key.role)
    };
    let (world, key) = start(role);
    let script = "print(client('sts').get_caller_identity()['Arn'])\n\
        s3 = client('s3')\ns3.put_object(Bucket='bucket', Key='x', Body=b'hello')\n\
        print(s3.get_object(Bucket='bucket', Key='x')['Body'].read())\n";
    let finished = sdk(&world, script);
    assert_ok(&finished);
    let mut lines = finished.stdout.lines();
    let arn = lines.next().unwrap();
    assert!(arn.ends_with(":assumed-role/reports/bot-python"), "{finished:?}");
    assert_eq!(lines.next(), Some("b'hello'"));
    // Each identity has a session of its own.
    let asked = |action: &str| {
        let log = fs::read_to_string(world.path("aws.log")).unwrap();
        log.lines().filter(|line| line.contains(action)).count()
    };
    let before = asked("\"POST / HTTP/1.1\"");
    let form = "Action=GetCallerIdentity&Version=2011-06-15";
    let claim = "Authorization: AWS4-HMAC-SHA256 Credential=DUMMY/20200101/eu-central-1/sts/aws4_request, \
                 SignedHeaders=host, Signature=00";
    for _ in 0..3 {
        let answer = world.curl(&["-H", claim, "-d", form, "https://raw.test/"]);
        assert!(answer.body.contains(":assumed-role/reports/bot-curl"), "{answer:?}");
    }
    assert_eq!(asked("\"POST / HTTP/1.1\"") - before, 3 + 1, "asked for once");
    assert_nowhere(&world, &key.secret);
}

#[test]
fn a_role_that_is_not_given_is_502_with_the_reason() {
    let (world, _) = start(|key| {
        let more = "role_arn = \"arn:aws:iam::123456789012:role/other\"\nsts_url = \"https://raw.test/\"";
        format!("{}\n{more}", pair(key))
    });
    world.secret("aws", "wrong/secret/wrong/secret/wrong/secret/0");
    let finished = sdk(&world, "client('s3').list_buckets()\n");
    assert!(finished.code != Some(0), "{finished:?}");
    let decision = world.decision(Some("/"));
    let reason = serde_json::to_string(&decision).unwrap();
    assert!(reason.contains("SignatureDoesNotMatch") && reason.contains("https://raw.test/"), "{reason}");
}
