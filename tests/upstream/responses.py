"""Responses as OpenAI itself writes them: with thoughts, sealed for whoever asks to keep them."""

import base64

from tests.upstream.wire import Responses

ENCRYPTED = "reasoning.encrypted_content"


class OpenAIResponses(Responses):
    """What the script thinks stands before the rest, in an item of its own."""

    def thoughts(self, text):
        item = {"id": "rs_scripted", "type": "reasoning", "summary": [{"type": "summary_text", "text": text}]}
        if ENCRYPTED in (self.request.get("include") or []):
            item["encrypted_content"] = "gAAAA" + base64.b64encode(text.encode()).decode()
        return item

    def delta(self, piece, sent):
        if piece.kind != "reasoning":
            if self.item and self.item["type"] == "reasoning":
                yield from self._close()
            yield from super().delta(piece, sent)
            return
        place = {"item_id": "rs_scripted", "output_index": len(self.output), "summary_index": 0}
        if self.item is None:
            self.item = self.thoughts("") | {"summary": []}
            yield self._item_event("added", self.item)
            part = {"type": "summary_text", "text": ""}
            yield self._event("response.reasoning_summary_part.added", part=part, **place)
        self.said += piece.text
        yield self._event("response.reasoning_summary_text.delta", delta=piece.text, **place)

    def _close(self):
        if self.item is None or self.item["type"] != "reasoning":
            yield from super()._close()
            return
        item = self.thoughts(self.said)
        place = {"item_id": "rs_scripted", "output_index": len(self.output), "summary_index": 0}
        yield self._event("response.reasoning_summary_text.done", text=self.said, **place)
        yield self._event("response.reasoning_summary_part.done", part=item["summary"][0], **place)
        yield self._item_event("done", item)
        self.output.append(item)
        self.item, self.said = None, ""

    def _output(self):
        said = "".join(self.script.reasoning)
        return ([self.thoughts(said)] if said else []) + super()._output()
