// An API that takes tokens of one issuer and checks them by published keys: receiver.js ADDRESS CERT KEY AUDIENCE KEYS
// KEYS is a JSON Web Key Set in a file, or the URL of an issuer whose discovery says where its set is.
// Answers 200 with the claims, 401 with what is wrong; each request is a line in requests.log.
const [address, cert, key, audience, keys] = process.argv.slice(2);
const crypto = require("crypto"), fs = require("fs"), http2 = require("http2");

let fetched;
async function published() {
  if (!keys.startsWith("http")) return { set: JSON.parse(fs.readFileSync(keys)) };
  // Kept for a while, as receivers do.
  if (!fetched || Date.now() - fetched.at > 1000) fetched = { at: Date.now(), what: discover() };
  return fetched.what;
}

async function discover() {
  const document = async (url) => (await fetch(url)).json();
  const discovered = await document(keys + "/.well-known/openid-configuration");
  if (discovered.issuer !== keys) throw new Error("the discovery is of another issuer");
  return { set: await document(discovered.jwks_uri), issuer: keys, algorithms: discovered.id_token_signing_alg_values_supported };
}

async function check(authorization) {
  const match = /^Bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/.exec(authorization || "");
  if (!match) throw new Error("no token");
  const [, head, body, signature] = match;
  const part = (text) => JSON.parse(Buffer.from(text, "base64url"));
  const header = part(head), claims = part(body), { set, issuer, algorithms } = await published();
  const jwk = set.keys.find((jwk) => jwk.kid === header.kid);
  if (!jwk) throw new Error("a key that is not published");
  if (jwk.alg !== header.alg || (algorithms && !algorithms.includes(header.alg))) throw new Error("another algorithm");
  if ("d" in jwk) throw new Error("a private key is published");
  const publicKey = { key: crypto.createPublicKey({ key: jwk, format: "jwk" }), dsaEncoding: "ieee-p1363" };
  const digest = header.alg === "EdDSA" ? null : "sha256";
  if (!crypto.verify(digest, `${head}.${body}`, publicKey, Buffer.from(signature, "base64url"))) throw new Error("a wrong signature");
  const now = Date.now() / 1000;
  if (!(claims.nbf <= now && now < claims.exp && claims.exp - claims.iat <= 3600)) throw new Error("not at this time");
  if (![claims.aud].flat().includes(audience)) throw new Error("for somebody else");
  if (issuer && claims.iss !== issuer) throw new Error("of another issuer");
  return claims;
}

const options = { cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHTTP1: true };
http2.createSecureServer(options, async (request, response) => {
  let status = 200, answer;
  try {
    answer = await check(request.headers.authorization);
  } catch (error) {
    [status, answer] = [401, { error: error.message }];
  }
  fs.appendFileSync("requests.log", JSON.stringify({ status, answer, authorization: request.headers.authorization }) + "\n");
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(answer));
}).listen(443, address);
