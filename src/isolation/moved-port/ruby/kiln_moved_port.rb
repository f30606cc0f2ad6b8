# Required first in an instance whose app asks for a port that it cannot have (KILN_PORT_DECLARED): a TCP server that is to
# be there listens on the port that the instance was given (KILN_PORT_ASSIGNED), whatever the address. All other ports and
# UDP stay as they are.
require 'socket'

module KilnMovedPort
  DECLARED = ENV['KILN_PORT_DECLARED'].to_i
  ASSIGNED = ENV['KILN_PORT_ASSIGNED'].to_i

  # TCPServer.new(port), TCPServer.new(host, port): puma, thin, Rack and code of one's own.
  module Server
    def initialize(*args)
      args[-1] = ASSIGNED if !args.empty? && args[-1].to_s == DECLARED.to_s
      super(*args)
    end
  end

  # Socket#bind, as WEBrick has it done.
  module Bind
    def bind(address)
      info = address.is_a?(Addrinfo) ? address : Addrinfo.new(address, nil, Socket::SOCK_STREAM)
      tcp = getsockopt(:SOCKET, :TYPE).int == Socket::SOCK_STREAM
      return super unless tcp && info.ip? && info.ip_port == DECLARED

      super(Addrinfo.tcp(info.ip_address, ASSIGNED))
    end
  end

  if DECLARED.positive? && ASSIGNED.positive?
    TCPServer.prepend(Server)
    Socket.prepend(Bind)
  end
end
