"""Drives pyEX through Tollgate. The world comes as JSON in argv[1]; what each step gave goes out as JSON."""

import json
import sys

import pyEX
from pyEX.common import urls
from pyEX.common.exception import PyEXception

world = json.loads(sys.argv[1])
base = world["base"]
urls.overrideUrl(url=base + "/{version}/")
urls.overrideSSEUrl(url=base + "/{version}/{channel}?symbols={symbols}&token={token}")


def client(token):
    return pyEX.Client(api_token=token, version="v1")


good, secret = client(world["good"]), client(world["secret"])


def listen():
    """Two events of a stream, then it is left."""
    seen = []

    class Enough(Exception):
        pass

    def keep(datum):
        seen.append(datum)
        if len(seen) == 2:
            raise Enough

    try:
        pyEX.stocksUS1SecondSSE(symbols="aapl,msft", on_data=keep, token=world["good"], version="v1")
    except Enough:
        pass
    return seen


def until_refused(ask):
    """A throttle lets some by before it refuses."""
    for _ in range(50):
        ask()
    return "never refused"


def post(url, token, body=None, token_in_params=True):
    """The posts of pyEX 0.5.0 mix up their arguments before anything is sent, and it has none for records; so its
    innermost sender is used, with the paths that its calls make."""
    return urls._postIEXCloudBase(
        urls._URL_PREFIX_CLOUD, url, json=body, token=token, version="v1", token_in_params=token_in_params
    )


def body_only(url, values):
    """Token in the body, and nowhere else."""
    token = world["secret"]
    return post(url, token, {"token": token, **values}, token_in_params=False)


car = {"make": "audi", "model": "py", "year": 2008}
steps = {
    "quote": lambda: good.quote("aapl"),
    "chart": lambda: good.chart("aapl", timeframe="1m"),
    "batch": lambda: good.batch(["aapl", "msft"], fields=["quote", "chart"]),
    "batch_of_one": lambda: good.batch("aapl", fields="quote"),
    "read": lambda: good.timeSeries(id="HISTORICAL_PRICES", key="aapl", last=2),
    "read_limited": lambda: good.timeSeries(id="HISTORICAL_PRICES", key="aapl"),
    "write": lambda: post("record/MY/CARS", world["good"], [car]),
    "written": lambda: urls._get("data/MY/CARS/audi/py", token=world["good"], version="v1"),
    "stream": listen,
    "usage": lambda: secret.usage(),
    "messages": lambda: secret.usage("messages"),
    "metadata": lambda: secret.metadata(),
    "status": lambda: pyEX.status(token=world["good"], version="v1"),
    "budget": lambda: post("account/messagebudget?totalMessages=1000000", world["secret"]),
    "pay_as_you_go": lambda: post("account/messagebudget?allow=True", world["secret"]),
    "budget_in_body": lambda: body_only("account/messagebudget", {"totalMessages": 2000000}),
    "unknown": lambda: client(world["unknown"]).quote("aapl"),
    "domain": lambda: client(world["domain"]).quote("aapl"),
    "exhausted": lambda: client(world["exhausted"]).quote("aapl"),
    "throttled": lambda: until_refused(lambda: client(world["throttled"]).quote("aapl")),
    "no_leave": lambda: urls._get("data/MY/WEATHER/Seattle", token=world["good"], version="v1"),
}

told = {}
for name, step in steps.items():
    try:
        told[name] = {"value": step()}
    except PyEXception as error:
        told[name] = {"error": "".join(str(part) for part in error.args)}
    except Exception as error:
        told[name] = {"fault": repr(error)}
sys.stdout.write("RESULT " + json.dumps(told, default=str))
