//! Envoy's configuration (envoy.config.bootstrap.v3), as the JSON that it takes.

use serde_json::{Value, json};

use super::site::Site;
use super::start::{Front, value};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

pub(super) fn configuration(fronts: &[Front], site: &Site) -> Value {
    let listeners: Vec<Value> = fronts.iter().enumerate().map(|it| listener(it, site)).collect();
    let clusters: Vec<Value> = fronts.iter().enumerate().map(|it| cluster(it, site)).collect();
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } })
}

fn alpn(front: &Front) -> Vec<&'static str> {
    if front.http2 { vec!["h2", "http/1.1"] } else { vec!["http/1.1"] }
}

fn at(address: &str) -> Value {
    json!({ "socket_address": { "address": address, "port_value": 443 } })
}

fn listener((number, front): (usize, &Front), site: &Site) -> Value {
    let certificate = json!({
        "certificate_chain": { "filename": site.peers.join("server.pem") },
        "private_key": { "filename": site.peers.join("server.key") },
    });
    json!({
        "name": format!("l{number}"),
        "address": at(&front.listen),
        "filter_chains": [{
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
                    "common_tls_context": { "alpn_protocols": alpn(front), "tls_certificates": [certificate] },
                },
            },
            "filters": [{
                "name": "http",
                "typed_config": {
                    "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "bench",
                    "generate_request_id": false,
                    "stream_idle_timeout": "60s",
                    "http_filters": [{
                        "name": "router",
                        "typed_config": { "@type": format!("{TYPES}.filters.http.router.v3.Router") },
                    }],
                    "route_config": { "virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{
                            "match": { "prefix": "/" },
                            "route": { "cluster": format!("c{number}"), "timeout": "60s" },
                            "request_headers_to_add": [{
                                "header": { "key": "authorization", "value": value(site) },
                                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                            }],
                        }],
                    }]},
                },
            }],
        }],
    })
}

fn cluster((number, front): (usize, &Front), site: &Site) -> Value {
    let protocol = if front.http2 { "http2_protocol_options" } else { "http_protocol_options" };
    json!({
        "name": format!("c{number}"),
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": { "thresholds": [{ "max_connections": 8192, "max_pending_requests": 8192, "max_requests": 8192 }] },
        "load_assignment": {
            "cluster_name": format!("c{number}"),
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(front.upstream) } }] }],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": { protocol: {} },
            },
        },
        "transport_socket": {
            "name": "tls",
            "typed_config": {
                "@type": format!("{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": front.host,
                "common_tls_context": {
                    "alpn_protocols": if front.http2 { vec!["h2"] } else { vec!["http/1.1"] },
                    "validation_context": {
                        "trusted_ca": { "filename": site.directory.join("ca.pem") },
                        "match_typed_subject_alt_names": [
                            { "san_type": "DNS", "matcher": { "exact": front.host } },
                        ],
                    },
                },
            },
        },
    })
}
