// APIs and token endpoints of every kind in one server: canary.js ADDRESS CERT KEY
// expect.json says how each credential is known: {NAME: {how, secret, key}}. /NAME/ok answers 200 or 401; /NAME/echo answers 200 and
// sends back all that it got, /NAME/refuse the same with 401. Endpoints whose name begins with "wrong" refuse, and repeat what they got.
// What nobody but daemon and server may know is a line of secrets.log: {"secret": …}, or {"signature": …} of one
// call alone.
const [address, cert, key] = process.argv.slice(2);
const crypto = require("crypto"), fs = require("fs"), http2 = require("http2");

const noted = new Set(), issued = new Map(), keys = new Map();
function secret(text, what = "secret") {
  if (!text || noted.has(text)) return;
  noted.add(text);
  fs.appendFileSync("secrets.log", JSON.stringify({ [what]: text }) + "\n");
}
// Of a signed token only the signature is one: what it says is no secret.
const token = (text) => secret(/^[\w-]+\.[\w-]+\.[\w-]+$/.test(text ?? "") ? text.split(".")[2] : text);
function issue(name, kind) {
  const made = `${kind}-${crypto.randomBytes(30).toString("base64url")}`;
  secret(made);
  issued.set(made, name);
  return made;
}
const hmac = (key, text) => crypto.createHmac("sha256", key).update(text).digest();
const sha256 = (text) => crypto.createHash("sha256").update(text).digest("hex");

function verified(text, pem) {
  const [head, body, signature] = text.split("."), { alg } = JSON.parse(Buffer.from(head, "base64url"));
  const publicKey = { key: crypto.createPublicKey(pem), dsaEncoding: "ieee-p1363" };
  return crypto.verify(alg === "EdDSA" ? null : "sha256", `${head}.${body}`, publicKey, Buffer.from(signature, "base64url"));
}

function signedByAws(request, url, body, known) {
  const claim = /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d+)\/([^/]+)\/([^/]+)\/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/;
  const [, id, day, region, service, names, signature] = claim.exec(request.headers.authorization ?? "") ?? [];
  if (!signature) return false;
  secret(signature, "signature");
  secret(request.headers["x-amz-security-token"]);
  const value = (name) => (name === "host" ? request.headers[":authority"] ?? request.headers.host : request.headers[name]);
  const lines = names.split(";").map((name) => `${name}:${value(name)}\n`).join("");
  const digest = request.headers["x-amz-content-sha256"] ?? sha256(body);
  const canonical = [request.method, url.pathname, url.searchParams.toString(), lines, names, digest].join("\n");
  const scope = `${day}/${region}/${service}/aws4_request`;
  const text = ["AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope, sha256(canonical)].join("\n");
  const right = [day, region, service, "aws4_request", text].reduce((key, part) => hmac(key, part), "AWS4" + known(id));
  return right.toString("hex") === signature;
}

const bearer = (request) => (/^Bearer (.+)$/.exec(request.headers.authorization ?? "") ?? [])[1] ?? "";
const ways = {
  bearer: (it) => bearer(it.request) === it.secret,
  prefix: (it) => bearer(it.request).startsWith(it.secret),
  basic: (it) => it.request.headers.authorization === "Basic " + Buffer.from("me:" + it.secret).toString("base64"),
  query: (it) => it.url.searchParams.get("key") === it.secret,
  cookie: (it) => it.request.headers.cookie === "sid=" + it.secret,
  placeholder: (it) => JSON.parse(it.body).key === it.secret,
  jwt: (it) => verified(bearer(it.request), it.key),
  issuer: (it) => bearer(it.request).split(".").length === 3,
  issued: (it) => issued.get(bearer(it.request)) === it.name,
  mtls: (it) => it.socket.getPeerCertificate().subject?.CN === it.name,
  hmac: (it) => it.request.headers["x-signature"] === hmac(it.secret, it.request.method + it.url.pathname).toString("hex"),
  aws: (it) => signedByAws(it.request, it.url, it.body, (id) => (id === "AKIDCANARY" ? it.secret : keys.get(id))),
};

// What proves a client at a token endpoint, in whichever way.
function client(request, form) {
  const [, basic] = /^Basic (.+)$/.exec(request.headers.authorization ?? "") ?? [];
  secret(basic);
  for (const name of ["client_assertion", "assertion", "subject_token", "actor_token", "refresh_token"]) token(form.get(name));
}

function serve(request, socket, url, body) {
  const [, first, second] = url.pathname.split("/"), form = new URLSearchParams(body);
  const heard = JSON.stringify({ ...request.headers, url: request.url, body });
  token(bearer(request));
  secret(request.headers["x-signature"], "signature");
  if (first === "token") {
    client(request, form);
    if (second.includes("garbage")) return [500, heard, "text/html"];
    if (second.startsWith("wrong")) return [400, JSON.stringify({ error: "invalid_grant", error_description: heard, error_uri: heard })];
    const type = { issued_token_type: "urn:ietf:params:oauth:token-type:access_token", token_type: "Bearer", expires_in: 300 };
    const refresh = form.get("refresh_token") && { refresh_token: issue(second, "refresh") };
    return [200, JSON.stringify({ access_token: issue(second, "access"), ...type, ...refresh })];
  }
  if (first === "github") {
    if (second.startsWith("wrong")) return [401, JSON.stringify({ message: heard })];
    const permissions = { contents: "read", metadata: "read" }, repositories = [{ name: "site", full_name: "acme/site" }];
    const expires_at = new Date(Date.now() + 3600_000).toISOString();
    return [201, JSON.stringify({ token: issue(second, "ghs"), expires_at, permissions, repository_selection: "selected", repositories })];
  }
  if (first === "sts") {
    signedByAws(request, url, body, () => "");
    token(form.get("WebIdentityToken"));
    const xml = (text) => text.replace(/[<>&"]/g, (sign) => `&#${sign.charCodeAt(0)};`);
    if (second.startsWith("wrong")) {
      return [403, `<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code><Message>${xml(heard)}</Message></Error></ErrorResponse>`, "text/xml"];
    }
    const id = "ASIA" + crypto.randomBytes(8).toString("hex").toUpperCase(), made = issue(second, "sts"), session = issue(second, "session");
    keys.set(id, made);
    const action = form.get("Action"), end = new Date(Date.now() + 3600_000).toISOString();
    return [200, `<${action}Response><${action}Result><Credentials><AccessKeyId>${id}</AccessKeyId><SecretAccessKey>${made}</SecretAccessKey>` +
      `<SessionToken>${session}</SessionToken><Expiration>${end}</Expiration></Credentials></${action}Result></${action}Response>`, "text/xml"];
  }
  const expected = JSON.parse(fs.readFileSync("expect.json"))[first];
  if (expected.how === "basic") secret(request.headers.authorization?.split(" ")[1]);
  const good = [expected.secret, ...(expected.also ?? [])].some((it) => ways[expected.how]({ ...expected, secret: it, name: first, request, socket, url, body }));
  if (!good) return [401, "who are you?", "text/plain"];
  if (second === "echo" || second === "refuse") return [second === "echo" ? 200 : 401, heard, "application/json", heard];
  return [200, JSON.stringify({ ok: first })];
}

const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), requestCert: true, rejectUnauthorized: false, allowHTTP1: true };
http2.createSecureServer(options, async (request, response) => {
  let body = "";
  for await (const part of request) body += part;
  const socket = request.stream?.session ? request.stream.session.socket : request.socket;
  let status, text, type = "application/json", told;
  try {
    [status, text, type = type, told] = serve(request, socket, new URL(request.url, "https://raw.test"), body);
  } catch (error) {
    console.error(request.url, error);
    [status, text] = [418, "{}"];
  }
  const one = told?.replace(/[^\x20-\x7e]/g, "");
  response.writeHead(status, { "content-type": type, ...(one && { "x-heard": one, "set-cookie": `heard=${encodeURIComponent(one)}` }) });
  response.end(text);
}).listen(443, address);
