"""What happens at each path: a body is read and parsed, the service classifies, an answer is worded."""

from collections.abc import Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from winnow_server import model, responses
from winnow_server.body import gone, read_body, refuse_compressed
from winnow_server.errors import NotFound, Unavailable, Unprocessable
from winnow_server.json_answer import Json
from winnow_server.limits import Truncation
from winnow_server.phase import Phase
from winnow_server.protocols import kserve, ndjson, oip, oip_binary, tei
from winnow_server.schemas import ClassificationRequest, ClassifyRequest, Item, from_validation, parse, texts_of
from winnow_server.service import LOADING_RETRY_SECONDS, Service
from winnow_server.stream import Slots, Stream
from winnow_server.thresholds import Rules, asked_for
from winnow_server.ticket import Ticket


class Routes:
    def __init__(self, service: Service, version: str) -> None:
        """version: the server's own, for other servers' clients."""
        self._service = service
        self._limits = service.limits
        self._version = version
        self._slots = Slots(service.limits.streams)

    async def classify(self, request: Request) -> Response:
        asked = parse(ClassifyRequest, await self._body(request))
        self._check_model(asked.model)
        rules = asked_for(asked.thresholds, self._service.rules, self._service.schema)
        ticket = await self._run(request, asked.input, rules=rules, truncation=asked.cut, max_tokens=asked.max_tokens)
        return self._answer(responses.classify(asked, ticket, self._service.announced, rules), ticket)

    async def classification(self, request: Request) -> Response:
        asked = parse(ClassificationRequest, await self._body(request))
        self._check_model(asked.model)
        ticket = await self._run(request, asked.input)
        return self._answer(responses.classification(asked, ticket, self._service.announced), ticket)

    async def stream(self, request: Request) -> Response:
        refuse_compressed(request)
        query = request.query_params
        for name in query:
            if len(query.getlist(name)) > 1:
                raise Unprocessable(
                    f"{name} stands twice in the query: give it once.", code="query_repeated", param=name
                )
        try:
            options = ndjson.Options.model_validate(dict(query))
        except ValidationError as err:
            raise from_validation(err) from err
        self._check_model(options.model)
        self._service.check_loaded()
        rules = asked_for(options.thresholds, self._service.rules, self._service.schema)
        return Stream(self._service, self._slots, options, rules)

    async def predict(self, request: Request) -> Response:
        asked = parse(tei.PredictRequest, await self._body(request))
        tei.wants_logits(asked, self._service.schema)
        ticket = await self._run(request, tei.texts(asked), truncation=tei.truncation(asked), field="inputs")
        return self._answer(tei.answer(asked, ticket, self._service.schema), ticket)

    async def tei_info(self, request: Request) -> Response:
        return Json(tei.info(self._service, self._version))

    async def kserve_predict(self, request: Request) -> Response:
        self._check_path(request)
        asked = parse(kserve.KServeRequest, await self._body(request))
        field, items = asked.listed
        ticket = await self._run(request, items, field=field)
        return self._answer(kserve.answer(ticket, self._service.announced.manifest.labels), ticket)

    async def infer(self, request: Request) -> Response:
        self._check_path(request)
        asked = oip_binary.read(await self._body(request), request.headers.get(oip_binary.JSON_LENGTH))
        self._check_model(asked.model_name, "model_name")
        oip.wanted(asked)
        ticket = await self._run(request, oip.texts(asked.inputs[0]), field="inputs[0].data")
        announced = self._service.announced
        outputs, tail = oip_binary.outputs(asked, ticket, announced.manifest.labels)
        answer = self._answer(oip.answer(asked, announced, outputs), ticket)
        if not tail:
            return answer
        headers = {**answer.headers, oip_binary.JSON_LENGTH: str(len(answer.body))}
        del headers["content-length"]
        headers["content-type"] = "application/octet-stream"
        return Response(b"".join((answer.body, *tail)), headers=headers)

    async def live(self, request: Request) -> Response:
        alive = self._service.alive()
        return Json({"live": alive}, 200 if alive else 503)

    async def ready(self, request: Request) -> Response:
        phase = self._service.phase
        return Json({"ready": phase is Phase.READY, "phase": phase}, 200 if phase is Phase.READY else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(self._service.metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def models(self, request: Request) -> Response:
        return Json({"object": "list", "data": [self._listed()], "models": [self._service.announced.name]})

    async def listed_model(self, request: Request) -> Response:
        self._check_path(request)
        self._check_ready()
        return Json({"name": self._service.announced.name, "ready": True, **self._listed()})

    async def card(self, request: Request) -> Response:
        card = model.card(self._service.announced, self._service.started_at)
        rules = {**responses.rules(self._service.rules), "decision": self._service.decision}
        return Json({**card, **rules, "precision": self._service.precision})

    async def examples(self, request: Request) -> Response:
        return Json({"examples": [one.model_dump() for one in self._service.examples]})

    async def oip_server(self, request: Request) -> Response:
        return Json({"name": "winnow", "version": self._version, "extensions": [oip_binary.EXTENSION]})

    async def oip_model(self, request: Request) -> Response:
        self._check_path(request)
        return Json(oip.metadata(self._service.announced))

    async def oip_model_ready(self, request: Request) -> Response:
        self._check_path(request)
        self._check_ready()
        return Json({"name": self._service.announced.name, "ready": True})

    async def page(self, request: Request) -> Response:
        """Browsers go to the test page; KServe's clients ask here whether the server lives."""
        if "text/html" in request.headers.get("accept", "") or request.scope["path"] != "/":
            # Relative, so that it holds behind a port-forward, a sub-path and the API server's proxy.
            return Response(status_code=307, headers={"location": "ui/"})
        return Json({"status": "alive"})

    async def docs(self, request: Request) -> Response:
        return Response(status_code=307, headers={"location": "docs/"})

    async def _body(self, request: Request) -> bytes:
        return await read_body(request, self._limits.body_bytes)

    async def _run(
        self,
        request: Request,
        items: Sequence[Item | str],
        *,
        truncation: Truncation | None = None,
        max_tokens: int | None = None,
        rules: Rules | None = None,
        field: str = "input",
    ) -> Ticket:
        return await self._service.classify(
            texts_of(items, self._limits.text_characters, field),
            field=field,
            truncation=truncation,
            max_tokens=max_tokens,
            rules=self._service.rules if rules is None else rules,
            gone=lambda: gone(request),
        )

    def _check_model(self, name: str | None, param: str = "model") -> None:
        served = self._service.announced.name
        if name is not None and name != served:
            raise NotFound(
                f"This server does not serve {name!r}; it serves {served!r}.", code="model_not_found", param=param
            )

    def _check_path(self, request: Request) -> None:
        """Raises NotFound if the path names another model, or another version of it."""
        self._check_model(request.path_params["model"], "path")
        version, served = request.path_params.get("version"), self._service.announced.version
        if version is not None and version != served:
            raise NotFound(
                f"This server does not serve version {version!r}; it serves {served!r}.",
                code="version_not_found",
                param="path",
            )

    def _check_ready(self) -> None:
        phase = self._service.phase
        if phase is not Phase.READY:
            raise Unavailable(
                f"The model is not ready: {phase}.",
                code="not_ready",
                headers={"Retry-After": str(LOADING_RETRY_SECONDS)},
            )

    def _listed(self) -> dict[str, Any]:
        announced = self._service.announced
        return {
            "id": announced.name,
            "object": "model",
            "created": self._service.started_at,
            "owned_by": "winnow",
            "max_model_len": announced.manifest.max_seq_length,
        }

    def _answer(self, content: Any, ticket: Ticket) -> Json:
        return Json(content, headers=responses.headers(ticket))
