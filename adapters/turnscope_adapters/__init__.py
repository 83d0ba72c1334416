"""What joins the kernel to the outside: the terminal (the ``turnscope`` command), models,
other frameworks' tools, and the web.

An adapter imports public names of `turnscope`, `turnscope.abc` and `turnscope.events`, as a third
party's would, and other files of this package that stand below it; nothing of the backends, which
the kernel finds by name. From the top::

    cli                                     the command: exit codes, and what to install
    _commands                               what may be typed
    _run_command  _demo  _tool_pages        the work of each command
    _stage                                  an agent's run, shown while it goes on
    _timeline  _prose  _json_lines          what is shown of it
    _record  _interrupts                    what happened; Ctrl-C
    _demo_model  _demo_tools  _files        the script and the tools of the demo
    _model_names  _targets  _conversation   what the options name
    _servers                                the tool servers that they name

    openai  anthropic                models behind HTTP, each with its _wire and its _stream:
                                     what is sent, and what is read
    _http_model                      what they have in common
    _http  _bodies  _chunks  _sse    connections; what all requests, and all answers, are made of
    _address  _server_words          where, and with which key; what a server says when it refuses

    functions                        tools from OpenAI's function definitions, and those from tools

    langchain  _langchain_parts      tools from and for LangChain; what their results are made of

    asgi                             runs behind HTTP: a block for handlers, a streaming response
    _disconnect  _sse_form           who listens for the client; what it is told
    _record                          as above

    mcp                              the tools of Model Context Protocol servers
    _mcp_connection                  one connection, in a task of its own
    _mcp_stdio  _mcp_http            the ways to a server
    _mcp_process                     its process group
    _mcp_tools  _mcp_results         what it lists; what it answers
    _mcp_errors                      what goes wrong with it

    otel                             spans and metrics of OpenTelemetry's, by an observer
    _otel_attributes  _otel_carried  what they say; a span on its way to a worker process

Importing this package imports none of them.
"""
