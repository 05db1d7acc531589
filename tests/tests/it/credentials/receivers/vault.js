// HashiCorp Vault as far as its published API is needed here: vault.js PORT SECRET_ID PASSWORD
// KV, version 2, at secret/ is what vault.json says (`{"demo": [{"key": "…"}]}`: all versions); database/creds/NAME gives PASSWORD on
// a lease. Each call is a line in vault.calls, each token one in vault.tokens.
const [port, secretId, password] = process.argv.slice(2);
const crypto = require("crypto"), fs = require("fs"), http = require("http");
const tokens = new Set(), leases = new Set(), secretIds = new Set([secretId]);

function answer(method, path, token, body) {
  const change = method === "PUT" || method === "POST";
  if (path === "auth/approle/login" && change) {
    if (body.role_id !== "role" || !secretIds.has(body.secret_id)) return [400, { errors: ["invalid role or secret ID"] }];
    const made = "hvs." + crypto.randomUUID();
    tokens.add(made);
    fs.appendFileSync("vault.tokens", made + "\n");
    return [200, { auth: { client_token: made, lease_duration: 3600, renewable: true } }];
  }
  if (!tokens.has(token)) return [403, { errors: ["permission denied"] }];
  if (path === "auth/token/lookup-self") return [200, { data: { ttl: 3600, renewable: true } }];
  if (path === "auth/token/revoke-self" && change) return tokens.delete(token), [204];
  if (path === "sys/leases/revoke" && change) return leases.delete(body.lease_id), [204];
  if (path === "auth/approle/role/vouchsafe/secret-id" && change) {
    const made = "CANARY-secret-id-" + crypto.randomUUID();
    secretIds.add(made);
    return [200, { data: { secret_id: made, secret_id_accessor: "a", secret_id_ttl: 0 } }];
  }
  if (path === "auth/approle/role/vouchsafe/secret-id/destroy" && change) {
    return secretIds.delete(body.secret_id), [204];
  }
  if (change) return [405, { errors: ["unsupported operation"] }];
  const mount = /^sys\/internal\/ui\/mounts\/(secret|database)\//.exec(path);
  if (mount) {
    const data = { secret: { type: "kv", options: { version: "2" } }, database: { type: "database", options: null } };
    return [200, { data: { path: mount[1] + "/", ...data[mount[1]] } }];
  }
  const versions = JSON.parse(fs.readFileSync("vault.json"))[path.replace(/^secret\/data\//, "")];
  if (versions) {
    const metadata = { created_time: "2027-01-01T00:00:00Z", deletion_time: "", destroyed: false, version: versions.length };
    return [200, { lease_id: "", lease_duration: 0, renewable: false, data: { data: versions.at(-1), metadata } }];
  }
  if (!path.startsWith("database/creds/")) return [404, { errors: [] }];
  const lease = path + "/" + crypto.randomUUID();
  leases.add(lease);
  return [200, { lease_id: lease, lease_duration: 3600, renewable: true, data: { username: "u", password } }];
}

http.createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const path = request.url.replace(/^\/v1\//, ""), text = Buffer.concat(parts).toString();
  const [status, said] = answer(request.method, path, request.headers["x-vault-token"], text ? JSON.parse(text) : {});
  fs.appendFileSync("vault.calls", `${request.method} ${path} ${status} ${leases.size}\n`);
  response.writeHead(status, { "content-type": "application/json" });
  response.end(said ? JSON.stringify(said) : "");
}).listen(Number(port), "127.0.0.1");
