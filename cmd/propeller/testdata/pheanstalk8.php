<?php
// A producer as pheanstalk 8 has it, by names, types and what is returned, over
// Debian's pheanstalk 4: a tube's name that is a string, or a call chained to
// useTube, ends here as it does there.

namespace Pheanstalk\Values {
    final class TubeName
    {
        public function __construct(public readonly int|string $value)
        {
        }
    }
}

namespace Pheanstalk {
    final class PheanstalkPublisher
    {
        private function __construct(private Pheanstalk $four)
        {
        }

        public static function create(string $host, int $port = 11300): self
        {
            return new self(Pheanstalk::create($host, $port));
        }

        public function useTube(Values\TubeName $tube): void
        {
            $this->four->useTube((string) $tube->value);
        }

        public function put(string $data, int $priority = 1024, int $delay = 0, int $timeToRelease = 60): Contract\JobIdInterface
        {
            return $this->four->put($data, $priority, $delay, $timeToRelease);
        }
    }
}
