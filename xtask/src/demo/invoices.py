"""A bot as one would write it: it calls an API and knows nothing of keys or proxies.

Usage: invoices.py METHOD URL
"""

import sys
import urllib.error
import urllib.request

method, url = sys.argv[1:]
request = urllib.request.Request(url, method=method)
try:
    with urllib.request.urlopen(request, timeout=15) as answer:
        print(f"{answer.read().decode().strip()} [{answer.status}]")
except urllib.error.HTTPError as error:
    print(f"{error.read().decode().strip()} [{error.code}]")
