"""Tool definitions of any provider, in OpenAI's nested format."""

from typing import Any

from extractors.span_parsing.drop_reasons import DropReason, Unreadable
from extractors.span_parsing.messages.placeholders import is_placeholder
from extractors.span_parsing.nested_attributes import parse_json


def read_tools(tools: Any) -> tuple[dict[str, Any], ...]:
    """Read tool definitions of any provider into OpenAI's nested format; tools of the provider are left out.

    Raises Unreadable.
    """
    if tools is None:
        return ()
    if isinstance(tools, dict):
        # Bedrock: {"tools": […]}.
        tools = tools.get("tools", [tools])
    if not isinstance(tools, list):
        raise Unreadable(DropReason.MALFORMED)
    if any(isinstance(tool, str) and is_placeholder(tool) for tool in tools):
        raise Unreadable(DropReason.REDACTED)
    return tuple(definition for tool in tools for definition in _read_tool(parse_json(tool)))


def _read_tool(tool: Any) -> list[dict[str, Any]]:
    if not isinstance(tool, dict):
        raise Unreadable(DropReason.MALFORMED)
    declarations = tool.get("functionDeclarations", tool.get("function_declarations"))
    if isinstance(declarations, list):
        return [definition for declaration in declarations for definition in _read_tool(declaration)]
    if isinstance(tool.get("function"), dict):
        if not _is_function({"type": tool.get("type", "function")}):
            return []
        return [{"type": "function", "function": _parse_schema_text(tool["function"])}]
    if tool.get("type") == "namespace":
        # A server gives each of its tools a longer name.
        raise Unreadable(DropReason.RENDERED_OTHERWISE)
    spec = tool.get("toolSpec")
    function = spec if isinstance(spec, dict) else tool
    if not isinstance(function.get("name"), str):
        return _leave_out_provider_tool(tool)
    if spec is None and not _is_function(tool):
        return []
    definition = {
        "name": function["name"],
        "description": function.get("description"),
        "parameters": _read_schema(function),
    }
    definition = {key: value for key, value in definition.items() if value is not None}
    return [{"type": "function", "function": definition}]


def _parse_schema_text(function: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(function.get("name"), str):
        raise Unreadable(DropReason.MALFORMED)
    return {**function, "parameters": _read_schema(function)} if function.get("parameters") else function


def _leave_out_provider_tool(tool: dict[str, Any]) -> list[dict[str, Any]]:
    """Return no definition for a tool that the provider runs. Raises Unreadable for anything else."""
    if (isinstance(tool.get("type"), str) and tool["type"] != "object") or len(tool) == 1:
        return []
    raise Unreadable(DropReason.MALFORMED)


def _is_function(tool: dict[str, Any]) -> bool:
    """Return whether a flat definition is a function's: Anthropic's own tools have a versioned type."""
    kind = tool.get("type", "function")
    return kind in ("function", "custom", "client") or "input_schema" in tool or "parameters" in tool


def _read_schema(function: dict[str, Any]) -> Any:
    for key in (
        "parameters",
        "input_schema",
        "inputSchema",
        "parametersJsonSchema",
        "parameters_json_schema",
    ):
        if function.get(key) is not None:
            schema = parse_json(function[key])
            schema = (
                parse_json(schema["json"]) if isinstance(schema, dict) and set(schema) == {"json"} else schema
            )
            if not isinstance(schema, dict):
                raise Unreadable(DropReason.MALFORMED)
            return _lower_types(schema)
    return None


def _lower_types(schema: Any) -> Any:
    """Return a JSON schema with its types in lower case, which Gemini writes in capitals."""
    if isinstance(schema, list):
        return [_lower_types(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: value.lower() if key == "type" and isinstance(value, str) else _lower_types(value)
        for key, value in schema.items()
    }
