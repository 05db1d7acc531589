// An authorization server (oidc-provider) and an API that asks it about tokens: server.mjs ADDRESS CERT KEY CA SETTINGS
// SETTINGS is JSON: clientsCa (file), jwks (of the client "key"), selfSigned (PEM, of the client "self"), signer (JWKS of
// https://signer.test), issuer (the URL of an issuer of subject tokens), ttl (of tokens, seconds).
// Each request of a token is a line in tokens.log, each call of the API one in requests.log. A refresh token for the client "web" is in
// refresh-token at the start.
import fs from "node:fs";
import https from "node:https";
import crypto from "node:crypto";
import { Provider, errors } from "oidc-provider";
import { createLocalJWKSet, createRemoteJWKSet, decodeJwt, jwtVerify } from "jose";

const [address, cert, key, ca, file] = process.argv.slice(2);
const settings = JSON.parse(fs.readFileSync(file)), ISSUER = "https://raw.test";
const BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT = "urn:ietf:params:oauth:token-type:jwt", ACCESS = "urn:ietf:params:oauth:token-type:access_token";

const client = (client_id, rest) => ({ client_id, grant_types: ["client_credentials"], redirect_uris: [], response_types: [], scope: "read write", ...rest });
const clients = [
  client("basic bot", { client_secret: "p:ss%w rd+/~*&=", token_endpoint_auth_method: "client_secret_basic" }),
  client("post", { client_secret: "secret-of-post-0123456789", token_endpoint_auth_method: "client_secret_post" }),
  client("tls", { token_endpoint_auth_method: "tls_client_auth", tls_client_auth_subject_dn: "CN=tls" }),
  client("exchanger", { grant_types: [BEARER, EXCHANGE], client_secret: "secret-of-exchanger-0123456789", token_endpoint_auth_method: "client_secret_basic" }),
  client("web", { grant_types: ["authorization_code", "refresh_token"], redirect_uris: ["https://web.test/cb"], response_types: ["code"],
    scope: "openid offline_access read", client_secret: "secret-of-web-0123456789", token_endpoint_auth_method: "client_secret_basic" }),
  client("api", { grant_types: [], client_secret: "secret-of-api-0123456789", token_endpoint_auth_method: "client_secret_basic" }),
];
if (settings.jwks) {
  clients.push(client("key", { token_endpoint_auth_method: "private_key_jwt", jwks: JSON.parse(fs.readFileSync(settings.jwks)) }));
}
if (settings.selfSigned) {
  const certificate = new crypto.X509Certificate(fs.readFileSync(settings.selfSigned));
  const jwk = { ...certificate.publicKey.export({ format: "jwk" }), kid: "self", x5c: [certificate.raw.toString("base64")] };
  clients.push(client("self", { token_endpoint_auth_method: "self_signed_tls_client_auth", jwks: { keys: [jwk] } }));
}

const ttl = settings.ttl ?? 300;
// What a token of a grant of our own says besides.
const extras = new WeakMap();
const provider = new Provider(ISSUER, {
  clients,
  scopes: ["read", "write", "offline_access"],
  clientAuthMethods: ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth", "self_signed_tls_client_auth", "none"],
  enabledJWA: { clientAuthSigningAlgValues: ["ES256", "RS256", "Ed25519", "EdDSA"] },
  rotateRefreshToken: true,
  extraTokenClaims: (_, token) => extras.get(token),
  ttl: { AccessToken: ttl, ClientCredentials: ttl, RefreshToken: 3600, Grant: 3600 },
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (_, asking) => asking.clientId === "api" },
    mTLS: {
      enabled: true, tlsClientAuth: true, selfSignedTlsClientAuth: true,
      getCertificate: (ctx) => {
        const peer = ctx.socket.getPeerCertificate();
        return peer?.raw ? new crypto.X509Certificate(peer.raw).toString() : undefined;
      },
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, _, expected) => new crypto.X509Certificate(ctx.socket.getPeerCertificate().raw).subject === expected,
    },
    resourceIndicators: {
      enabled: true, useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => {
        if (resource !== `${ISSUER}/v1`) throw new errors.InvalidTarget();
        return { scope: "read write", audience: resource, accessTokenFormat: "opaque", accessTokenTTL: ttl };
      },
    },
  },
});

// Who signed a token, and whom it is about; for this server alone, and now.
const remote = settings.issuer && fetch(`${settings.issuer}/.well-known/openid-configuration`).then((it) => it.json());
async function verified(token) {
  try {
    const { iss } = decodeJwt(token), options = { issuer: iss, audience: ISSUER, requiredClaims: ["exp", "iat", "jti", "sub"] };
    if (iss === "https://signer.test") {
      return (await jwtVerify(token, createLocalJWKSet(JSON.parse(fs.readFileSync(settings.signer))), options)).payload;
    }
    const discovered = await remote;
    if (iss !== settings.issuer || discovered.issuer !== iss) throw new Error("of an issuer that is not known");
    return (await jwtVerify(token, createRemoteJWKSet(new URL(discovered.jwks_uri)), options)).payload;
  } catch (error) {
    throw new errors.InvalidGrant(`not believed: ${error.message} ${token}`);
  }
}

async function give(ctx, extra, issued) {
  const { client, params } = ctx.oidc;
  const token = new provider.ClientCredentials({ client, scope: params.scope });
  extras.set(token, extra);
  ctx.body = { access_token: await token.save(), expires_in: token.expiration, token_type: token.tokenType, ...issued };
}

provider.registerGrantType(BEARER, async (ctx) => {
  const { sub } = await verified(ctx.oidc.params.assertion);
  await give(ctx, { sub });
}, ["assertion", "scope"]);

// A subject and an actor are JWTs of an issuer, or access tokens of this server.
async function shown(token, type) {
  if (type === JWT) return verified(token);
  const found = type === ACCESS && (await provider.ClientCredentials.find(token));
  if (!found?.isValid) throw new errors.InvalidGrant("no such token");
  return { sub: found.clientId };
}

provider.registerGrantType(EXCHANGE, async (ctx) => {
  const { params } = ctx.oidc, { sub } = await shown(params.subject_token, params.subject_token_type);
  const actor = params.actor_token && (await shown(params.actor_token, params.actor_token_type));
  await give(ctx, { sub, act: actor && { sub: actor.sub }, audience: params.audience }, { issued_token_type: settings.issued ?? ACCESS });
}, ["subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type", "audience", "resource", "scope"]);

const line = (name, value) => fs.appendFileSync(name, JSON.stringify(value) + "\n");
const asked = (ctx, rest) => line("tokens.log", { client: ctx.oidc.client?.clientId, authorization: ctx.headers.authorization, params: { ...ctx.oidc.params }, ...rest });
provider.on("grant.success", (ctx) => asked(ctx, { answer: ctx.body }));
provider.on("grant.error", (ctx, error) => asked(ctx, { error: error.error_description ?? error.message }));
provider.on("server_error", (_, error) => console.error(error));

function introspected(token) {
  const options = {
    host: address, port: 443, servername: "raw.test", path: "/token/introspection", method: "POST", ca: fs.readFileSync(ca),
    auth: "api:secret-of-api-0123456789", headers: { host: "raw.test", "content-type": "application/x-www-form-urlencoded" },
  };
  return new Promise((resolve, reject) => {
    const request = https.request(options, async (response) => {
      let text = "";
      for await (const part of response) text += part;
      resolve(JSON.parse(text));
    });
    request.on("error", reject);
    request.end(new URLSearchParams({ token }).toString());
  });
}

async function api(request, response) {
  const [, token] = /^Bearer ([\w.~+/=-]+)$/.exec(request.headers.authorization ?? "") ?? [];
  const answer = token ? await introspected(token) : { active: false }, status = answer.active ? 200 : 401;
  line("requests.log", { status, answer, authorization: request.headers.authorization });
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(answer));
}

const grant = new provider.Grant({ accountId: "alice", clientId: "web" });
grant.addOIDCScope("offline_access read");
const refresh = new provider.RefreshToken({
  accountId: "alice", client: await provider.Client.find("web"), grantId: await grant.save(), scope: "offline_access read", gty: "authorization_code",
});
fs.writeFileSync("refresh-token", await refresh.save());

const options = {
  cert: fs.readFileSync(cert), key: fs.readFileSync(key), requestCert: true, rejectUnauthorized: false,
  ca: settings.clientsCa && fs.readFileSync(settings.clientsCa),
};
const oauth = provider.callback();
https.createServer(options, (request, response) => {
  (request.url.startsWith("/v1/") ? api : oauth)(request, response)?.catch?.((error) => console.error(error));
}).listen(443, address);
