// An API like GitHub's: github.js ADDRESS CERT KEY APP_KEY (the App's public key, PEM) [wide]
// App 77 has the installation 42 with the repositories site, docs and payroll. It gives tokens to whoever proves to be the App,
// for no more than was asked for ("wide": for more), and serves /repos/acme/NAME to their bearers. requests.log has a line for each.
const [address, cert, key, appKey, wide] = process.argv.slice(2);
const crypto = require("crypto"), fs = require("fs"), http2 = require("http2");

const installation = { id: 42, repositories: ["site", "docs", "payroll"], permissions: { contents: "write", issues: "write" } };
const levels = ["read", "write", "admin"], tokens = new Map();

function proveApp(authorization) {
  const [, token] = /^Bearer (\S+)$/.exec(authorization || "") || [];
  const [head, body, signature] = (token || "").split(".");
  if (!signature) throw [401, "no token of an App"];
  const part = (text) => JSON.parse(Buffer.from(text, "base64url"));
  if (part(head).alg !== "RS256") throw [401, "another algorithm"];
  const published = crypto.createPublicKey(fs.readFileSync(appKey));
  if (!crypto.verify("sha256", `${head}.${body}`, published, Buffer.from(signature, "base64url"))) throw [401, "a wrong signature"];
  const claims = part(body), now = Math.floor(Date.now() / 1000);
  if (claims.iss !== "77") throw [401, "another App"];
  if (claims.iat > now || claims.exp <= now || claims.exp > now + 600) throw [401, "not at this time"];
}

function give(wanted) {
  const { repositories = installation.repositories, permissions = installation.permissions } = wanted;
  for (const name of repositories) if (!installation.repositories.includes(name)) throw [422, "no such repository"];
  for (const [name, level] of Object.entries(permissions)) {
    if (levels.indexOf(level) > levels.indexOf(installation.permissions[name])) throw [422, "no such permission"];
  }
  const given = wide ? installation : { repositories, permissions };
  const token = "ghs_" + crypto.randomBytes(24).toString("base64url"), expires = Date.now() + 3600_000;
  tokens.set(token, { ...given, expires });
  return {
    token, expires_at: new Date(expires).toISOString(), permissions: { ...given.permissions, metadata: "read" },
    repository_selection: "repositories" in wanted ? "selected" : "all",
    repositories: given.repositories.map((name) => ({ name, full_name: `acme/${name}` })),
  };
}

function serve(method, path, authorization) {
  const token = tokens.get((/^Bearer (\S+)$/.exec(authorization || "") || [])[1]);
  if (!token || token.expires < Date.now()) throw [401, "no token, or one that is over"];
  const [, name] = /^\/repos\/acme\/([^/]+)/.exec(path) || [];
  if (!token.repositories.includes(name)) throw [404, "no such repository"];
  if (method !== "GET" && token.permissions.contents !== "write") throw [403, "only reading"];
  return { repository: name, permissions: token.permissions, repositories: token.repositories };
}

http2.createSecureServer({ cert: fs.readFileSync(cert), key: fs.readFileSync(key), allowHTTP1: true }, async (request, response) => {
  let body = "", status, answer;
  for await (const part of request) body += part;
  const authorization = request.headers.authorization;
  try {
    if (request.method === "POST" && request.url === `/app/installations/${installation.id}/access_tokens`) {
      proveApp(authorization);
      [status, answer] = [201, give(JSON.parse(body))];
    } else if (request.url.startsWith("/app/")) {
      proveApp(authorization);
      throw [404, "no such installation"];
    } else {
      [status, answer] = [200, serve(request.method, request.url, authorization)];
    }
  } catch (refusal) {
    if (!Array.isArray(refusal)) throw refusal;
    [status, answer] = [refusal[0], { message: refusal[1] }];
  }
  fs.appendFileSync("requests.log", JSON.stringify({ status, path: request.url, authorization, wanted: body, token: answer.token }) + "\n");
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(answer));
}).listen(443, address);
