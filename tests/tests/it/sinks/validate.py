"""Holds events against the schema of OCSF, each by its class and its profiles; prints the classes that there were."""

import collections
import json
import sys

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

schemas, validators, classes, wrong = {}, {}, collections.Counter(), []
for line in open(sys.argv[1]):
    event = json.loads(line)
    version, profiles = event["metadata"]["version"], event["metadata"]["profiles"]
    if version not in schemas:
        schemas[version] = OcsfJsonSchemaEmbedded(get_ocsf_schema(version))
    name = schemas[version].lookup_class_name_from_uid(event["class_uid"])
    if name not in validators:
        validators[name] = jsonschema.Draft202012Validator(schemas[version].get_class_schema(name, profiles))
    classes[name] += 1
    code = event["metadata"]["event_code"]
    for error in validators[name].iter_errors(event):
        wrong.append(f"{name} ({code}) at {list(error.absolute_path)}: {error.message[:300]}")
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        wrong.append(f"{name} ({code}): type_uid")
print(json.dumps(classes))
sys.exit("\n".join(sorted(set(wrong))) or None)
