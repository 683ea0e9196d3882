"""The table of all endpoints: what routes, metrics and openapi.json are made from."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from winnow_server import answers
from winnow_server.protocols import kserve, ndjson, oip, oip_binary, tei
from winnow_server.routes import Routes
from winnow_server.schemas import ClassificationRequest, ClassifyRequest

JSON = "application/json"
OCTETS = "application/octet-stream"
CLASSIFY, OTHERS, OIP, ABOUT = "Classify", "Other servers' clients", "Open Inference Protocol v2", "About the server"
Handler = Callable[[Request], Awaitable[Response]]
WORK = (400, 401, 404, 405, 408, 413, 415, 422, 429, 500, 503, 504)


@dataclass(frozen=True, slots=True)
class Endpoint:
    path: str  # as starlette reads it
    handler: Handler
    group: str
    summary: str
    answer: type[BaseModel] | None = None  # None: not JSON
    body: type[BaseModel] | None = None  # of a POST
    query: type[BaseModel] | None = None
    errors: tuple[int, ...] = (401, 405)
    unwell: bool = False  # its answer may also come with 503
    media_type: str = JSON
    binary: bool = False  # also takes and gives tensors as bytes
    described: str = ""

    @property
    def method(self) -> str:
        return "POST" if self.body else "GET"

    @property
    def template(self) -> str:
        """As openapi.json and metrics name it."""
        return self.path.replace(":path}", "}")


def endpoints(routes: Routes) -> tuple[Endpoint, ...]:
    """In the order in which they are matched: the busiest first."""
    model = "/v2/models/{model:path}"
    version = f"{model}/versions/{{version:path}}"
    infer = Endpoint(
        f"{model}/infer",
        routes.infer,
        OIP,
        "Inference",
        oip.InferAnswer,
        oip.InferRequest,
        errors=WORK,
        binary=True,
        described=f"Tensors may also travel as bytes, with the header {oip_binary.JSON_LENGTH}.",
    )
    return (
        Endpoint("/v1/classify", routes.classify, CLASSIFY, "Probabilities and predicted labels of texts",
                 answers.ClassifyAnswer, ClassifyRequest, errors=WORK),
        Endpoint("/classify", routes.classify, CLASSIFY, "The same, where vLLM's clients look for it",
                 answers.ClassifyAnswer, ClassifyRequest, errors=WORK),
        Endpoint("/v1/classification", routes.classification, CLASSIFY, "Logits or probabilities by label name",
                 answers.ClassificationAnswer, ClassificationRequest, errors=WORK),
        Endpoint("/v1/classify/batch", routes.stream, CLASSIFY, "A stream of texts, one a line",
                 ndjson.LineAnswer, ndjson.Line, ndjson.Options, errors=WORK, media_type=ndjson.MEDIA_TYPE,
                 described="Answers come in the order of the lines, as soon as they are there. A line that is wrong answers "
                 "an error line, and the stream goes on. The lines run only while no other request waits."),
        Endpoint("/predict", routes.predict, OTHERS, "As text-embeddings-inference and Hugging Face's clients send it",
                 tei.PredictAnswer, tei.PredictRequest, errors=WORK),
        Endpoint("/", routes.predict, OTHERS, "The same", tei.PredictAnswer, tei.PredictRequest, errors=WORK),
        Endpoint("/info", routes.tei_info, OTHERS, "The model and its bounds, as text-embeddings-inference's clients ask",
                 tei.Info),
        Endpoint("/v1/models/{model:path}:predict", routes.kserve_predict, OTHERS, "As KServe V1 clients send it",
                 kserve.KServeAnswer, kserve.KServeRequest, errors=WORK),
        replace(infer, path=f"{version}/infer", summary="Inference on this version"),
        infer,
        Endpoint(f"{version}/ready", routes.oip_model_ready, OIP, "Is this version ready?", oip.ModelReady,
                 errors=(401, 404, 405, 503)),
        Endpoint(f"{model}/ready", routes.oip_model_ready, OIP, "Is the model ready?", oip.ModelReady,
                 errors=(401, 404, 405, 503)),
        Endpoint(version, routes.oip_model, OIP, "The version's tensors", oip.ModelMetadata,
                 errors=(401, 404, 405)),
        Endpoint(model, routes.oip_model, OIP, "The model's tensors", oip.ModelMetadata,
                 errors=(401, 404, 405)),
        Endpoint("/v2", routes.oip_server, OIP, "The server", oip.ServerMetadata),
        Endpoint("/v2/", routes.oip_server, OIP, "The same, where the protocol's own description has it", oip.ServerMetadata),
        Endpoint("/v2/health/live", routes.live, OIP, "200 while the process can do its work", answers.Live, errors=(405,), unwell=True),
        Endpoint("/v2/health/ready", routes.ready, OIP, "200 while it wants requests", answers.Ready, errors=(405,), unwell=True),
        Endpoint("/health", routes.live, ABOUT, "200 while the process can do its work", answers.Live, errors=(405,), unwell=True),
        Endpoint("/ping", routes.live, ABOUT, "The same, where text-embeddings-inference's clients ask", answers.Live, errors=(405,), unwell=True),
        Endpoint("/metrics", routes.metrics, ABOUT, "Prometheus", media_type="text/plain", errors=(405,)),
        Endpoint("/v1/models", routes.models, ABOUT, "The model, as OpenAI's and KServe's clients list it", answers.ModelList),
        Endpoint("/v1/models/{model:path}", routes.listed_model, ABOUT, "The model, as KServe's and OpenAI's clients ask for it",
                 kserve.ModelState, errors=(401, 404, 405, 503)),
        Endpoint("/v1/model", routes.card, ABOUT, "Labels, checkpoint, metrics, digests: what is served", answers.ModelCard),
        Endpoint("/v1/examples", routes.examples, ABOUT, "Rows of the test set to try, mistakes among them", answers.Examples),
        Endpoint("/", routes.page, ABOUT, "Browsers are sent to the test page", answers.Alive, errors=(405,)),
    )  # fmt: skip
