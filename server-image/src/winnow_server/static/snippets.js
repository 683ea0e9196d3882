// The page's request as a command and as a program. A key is named, never written out. No DOM.

const KEY = "WINNOW_API_KEY";

export function curl({ address, body, withKey }) {
  const key = withKey ? ` \\\n  -H "X-API-Key: $${KEY}"` : "";
  return `curl ${shell(address)}${key} \\\n  -H 'content-type: application/json' \\\n  -d ${shell(JSON.stringify(body))}`;
}

export function python({ address, body, withKey }) {
  const key = withKey ? `, "X-API-Key": os.environ["${KEY}"]` : "";
  return `import json
${withKey ? "import os\n" : ""}import urllib.request

request = urllib.request.Request(
    ${JSON.stringify(address)},
    json.dumps(${JSON.stringify(body)}).encode(),
    {"Content-Type": "application/json"${key}},
)
with urllib.request.urlopen(request) as response:
    print(json.load(response)["data"][0])`;
}

function shell(words) {
  return `'${words.replaceAll("'", "'\\''")}'`;
}
