"""The load of benchmarks/serving.py, a process of its own: clients that each send the next text when the last is answered.

Prints one JSON object: requests, seconds, latencies in seconds (p50, p99), and how many answers were not 200.
"""

import argparse
import asyncio
import json
import time
from statistics import quantiles

import aiohttp

# About as long as an SMS or a support request: 4 to 40 tokens.
TEXTS = (
    "Ok lar, see you at the station.",
    "How do I change the PIN of my card?",
    "WINNER! You have been selected for a free prize. Call now to claim your reward before midnight.",
    "Thanks",
    "My transfer has not arrived yet and it has been three days, can you tell me where it is?",
    "I loved this film, the second half most of all.",
    "Please find the minutes of the meeting attached. Let me know by Friday if anything is missing, "
    "otherwise I will send them on to the board.",
    "Why was I charged a fee for withdrawing cash abroad?",
)


async def load(url: str, clients: int, seconds: float, model: str | None = None) -> dict[str, float]:
    """model: named in the body, whose input then is a list: infinity asks for both."""
    latencies: list[float] = []
    refused = 0

    async def client(number: int, session: aiohttp.ClientSession, end: float) -> None:
        nonlocal refused
        turn = number
        while (started := time.perf_counter()) < end:
            text = TEXTS[turn % len(TEXTS)]
            body = {"input": text} if model is None else {"input": [text], "model": model}
            async with session.post(url, json=body) as response:
                await response.read()
                refused += response.status != 200
            latencies.append(time.perf_counter() - started)
            turn += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients)) as session:
        started = time.perf_counter()
        await asyncio.gather(*(client(number, session, started + seconds) for number in range(clients)))
        took = time.perf_counter() - started
    cuts = quantiles(latencies, n=100)
    return {"requests": len(latencies), "seconds": took, "p50": cuts[49], "p99": cuts[98], "refused": refused}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(load(arguments.url, arguments.clients, arguments.seconds, arguments.model))))
